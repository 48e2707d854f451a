-- Put what a process holds back at the head of its channel. Twice does no harm.
--
-- KEYS 1 what this process holds (hash, as in claim.lua or recover.lua)
--      2 the channel's queue (list of entries, as in prelude.lua)
--      3 its wake list
--      4 queues that may hold what expires (set of keys, as in heartbeat.lua)
-- ARGV 1 how many losses of a worker to add to each entry's
--      2 the channel's expiry, in milliseconds
--      3… fields of KEYS 1; the last of them comes first in the queue
-- Returns how many of them were held.
local expiry = tonumber(ARGV[2])
local returned = 0
for n = 3, #ARGV do
  local entry = redis.call("HGET", KEYS[1], ARGV[n])
  if entry then
    redis.call("HDEL", KEYS[1], ARGV[n])
    local losses = math.min(9, losses_of(entry) + tonumber(ARGV[1]))
    entry = make_entry(now() + expiry, losses, body_of(entry))
    push("LPUSH", KEYS[2], KEYS[3], entry, expiry, 600000)
    returned = returned + 1
  end
end
if returned > 0 then
  redis.call("SADD", KEYS[4], KEYS[2])
end
return returned
