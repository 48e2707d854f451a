-- Send one message to a process-local channel: into the stream of its inbox where a gateway has
-- opened it, else into a queue, which expires.
--
-- KEYS 1 statistics (hash)
--      2 the inbox's register (hash); it exists while a gateway is there
--      3 the inbox (stream, one field "e": channel, newline, payload)
--      4 the queue (list of entries, as in send.lua) for readers without a gateway
--      5 its wake list
-- ARGV 1 capacity of the inbox, or -1: no limit
--      2 capacity of the channel, or -1: no limit
--      3 its expiry, in milliseconds
--      4 what is sent: channel, newline, payload
-- Returns 1, or 0 where it is full.
if redis.call("EXISTS", KEYS[2]) == 1 then
  local capacity = tonumber(ARGV[1])
  if capacity >= 0 and redis.call("XLEN", KEYS[3]) >= capacity then
    redis.call("HINCRBY", KEYS[1], "full", 1)
    return 0
  end
  redis.call("XADD", KEYS[3], "*", "e", ARGV[4])
  redis.call("HINCRBY", KEYS[1], "sent", 1)
  return 1
end
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local capacity, expiry = tonumber(ARGV[2]), tonumber(ARGV[3])
local head = redis.call("LINDEX", KEYS[4], 0)
while head and tonumber(string.sub(head, 1, 13)) <= now do
  redis.call("LPOP", KEYS[4])
  redis.call("HINCRBY", KEYS[1], "expired", 1)
  head = redis.call("LINDEX", KEYS[4], 0)
end
if capacity >= 0 and redis.call("LLEN", KEYS[4]) >= capacity then
  redis.call("HINCRBY", KEYS[1], "full", 1)
  return 0
end
redis.call("RPUSH", KEYS[4], string.format("%013d0", now + expiry) .. ARGV[4])
redis.call("PEXPIRE", KEYS[4], expiry + 1000)
redis.call("DEL", KEYS[5])
redis.call("RPUSH", KEYS[5], "1")
redis.call("PEXPIRE", KEYS[5], expiry + 1000)
redis.call("HINCRBY", KEYS[1], "sent", 1)
return 1
