-- Take what is due. Each is put off, not removed: it is removed once it has been sent, and another
-- process sends it if this one is lost meanwhile.
--
-- KEYS 1 what is due later (sorted set, as in send_later.lua)
-- ARGV 1 for how many milliseconds to put it off
--      2 how many
-- Returns first the milliseconds until the next is due (-1: no message is delayed), then the messages.
local time = now()
local due = redis.call("ZRANGEBYSCORE", KEYS[1], "-inf", time, "LIMIT", 0, ARGV[2])
for _, message in ipairs(due) do
  redis.call("ZADD", KEYS[1], time + tonumber(ARGV[1]), message)
end
local following = redis.call("ZRANGE", KEYS[1], 0, 0, "WITHSCORES")
local pause = -1
if following[2] then
  pause = math.max(0, tonumber(following[2]) - time)
end
table.insert(due, 1, pause)
return due
