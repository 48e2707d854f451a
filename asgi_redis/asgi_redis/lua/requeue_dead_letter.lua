-- Put a dead letter back on its channel, at the end, whatever its capacity.
--
-- KEYS 1 the dead letters (stream, as in dead_letter.lua)
--      2 the channel's queue (list of entries, as in prelude.lua)
--      3 its wake list
--      4 queues that may hold what expires (set of keys, as in heartbeat.lua)
-- ARGV 1 the letter's id
--      2 the channel's expiry, in milliseconds
-- Returns 1, or 0 if there is no such letter.
local letter = redis.call("XRANGE", KEYS[1], ARGV[1], ARGV[1])[1]
if not letter then
  return 0
end
redis.call("XDEL", KEYS[1], ARGV[1])
local expiry = tonumber(ARGV[2])
local entry = make_entry(now() + expiry, 0, body_of(letter[2][4]))
push("RPUSH", KEYS[2], KEYS[3], entry, expiry, 600000)
redis.call("SADD", KEYS[4], KEYS[2])
return 1
