-- Acknowledge what a slot holds, and claim the next message for it.
--
-- KEYS 1      what this process holds (hash of slot to entry)
--      2      leases (sorted set of holder by the time its lease ends, in milliseconds)
--      3      statistics (hash)
--      2n + 2 a channel's queue (list of entries, as in send.lua)
--      2n + 3 its wake list
-- ARGV 1      the slot
--      2      this process, as in the leases
--      3      how long a lease lasts, in milliseconds
--      4      where to begin, from 0: each channel in turn, so that none starves
-- Returns the entry, or nil.
redis.call("HDEL", KEYS[1], ARGV[1])
local channels = (#KEYS - 3) / 2
local queues = {}
for n = 1, channels do
  queues[n] = KEYS[2 * n + 2]
end
if channels == 0 or redis.call("EXISTS", unpack(queues)) == 0 then
  return nil
end
local now
for step = 0, channels - 1 do
  local n = (tonumber(ARGV[4]) + step) % channels + 1
  local entry = redis.call("LPOP", queues[n])
  while entry do
    if not now then
      local time = redis.call("TIME")
      now = time[1] * 1000 + math.floor(time[2] / 1000)
    end
    if tonumber(string.sub(entry, 1, 13)) > now then
      redis.call("HSET", KEYS[1], ARGV[1], entry)
      redis.call("ZADD", KEYS[2], "NX", now + tonumber(ARGV[3]), ARGV[2])
      if redis.call("EXISTS", queues[n]) == 0 then
        redis.call("DEL", KEYS[2 * n + 3])
      elseif redis.call("EXISTS", KEYS[2 * n + 3]) == 0 then
        redis.call("RPUSH", KEYS[2 * n + 3], "1")
        redis.call("PEXPIRE", KEYS[2 * n + 3], 60000)
      end
      return entry
    end
    redis.call("HINCRBY", KEYS[3], "expired", 1)
    entry = redis.call("LPOP", queues[n])
  end
end
return nil
