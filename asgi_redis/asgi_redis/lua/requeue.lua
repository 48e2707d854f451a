-- Put a dead letter back on its channel, at the end, whatever its capacity.
--
-- KEYS 1 the dead letters (stream, as in bury.lua)
--      2 the channel's queue (list of entries, as in send.lua)
--      3 its wake list
--      4 queues that may hold what expires (set of keys, as in beat.lua)
-- ARGV 1 the letter's id
--      2 the channel's expiry, in milliseconds
-- Returns 1, or 0 if there is no such letter.
local letter = redis.call("XRANGE", KEYS[1], ARGV[1], ARGV[1])[1]
if not letter then
  return 0
end
redis.call("XDEL", KEYS[1], ARGV[1])
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local expiry = tonumber(ARGV[2])
redis.call(
  "RPUSH", KEYS[2], string.format("%013d0", now + expiry) .. string.sub(letter[2][4], 15)
)
redis.call("PEXPIRE", KEYS[2], expiry + 600000)
redis.call("SADD", KEYS[4], KEYS[2])
redis.call("DEL", KEYS[3])
redis.call("RPUSH", KEYS[3], "1")
redis.call("PEXPIRE", KEYS[3], expiry + 1000)
return 1
