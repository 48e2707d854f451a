-- Put what a slot holds back at the head of its channel.
--
-- KEYS 1 what this process holds (hash of slot to entry)
--      2 the channel's queue (list of entries, as in send.lua)
--      3 its wake list
--      4 queues that may hold what expires (set of keys, as in beat.lua)
-- ARGV 1 the slot
--      2 how many losses of a worker to add to the entry's
--      3 the channel's expiry, in milliseconds
-- Returns 1, or 0 if the slot holds nothing.
local entry = redis.call("HGET", KEYS[1], ARGV[1])
if not entry then
  return 0
end
redis.call("HDEL", KEYS[1], ARGV[1])
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local expiry = tonumber(ARGV[3])
local losses = math.min(9, tonumber(string.sub(entry, 14, 14)) + tonumber(ARGV[2]))
redis.call(
  "LPUSH", KEYS[2], string.format("%013d%d", now + expiry, losses) .. string.sub(entry, 15)
)
if redis.call("PTTL", KEYS[2]) < expiry + 600000 then
  redis.call("PEXPIRE", KEYS[2], expiry + 600000)
end
redis.call("SADD", KEYS[4], KEYS[2])
redis.call("DEL", KEYS[3])
redis.call("RPUSH", KEYS[3], "1")
redis.call("PEXPIRE", KEYS[3], expiry + 1000)
return 1
