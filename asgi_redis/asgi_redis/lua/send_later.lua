-- Keep a message until it is due.
--
-- KEYS 1 what is due later (sorted set of id, channel, newline, payload by time in milliseconds)
--      2 the wake list of the processes that look after it
--      3 which project uses this prefix (check_project.lua): it stays while a message is delayed
-- ARGV 1 in how many milliseconds it is due
--      2 the message: 16 hexadecimal digits that make it unique, channel, newline, payload
-- Returns 1 if it is the next one due, and so wakes a process; else 0.
local project = redis.call("GET", KEYS[3])
redis.call("ZADD", KEYS[1], now() + tonumber(ARGV[1]), ARGV[2])
if project then
  redis.call("SET", KEYS[3], project)
end
if redis.call("ZRANGE", KEYS[1], 0, 0)[1] ~= ARGV[2] then
  return 0
end
wake_one(KEYS[2], 60000)
return 1
