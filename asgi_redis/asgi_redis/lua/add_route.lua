-- Route a group to an inbox in another partition. Of two changes that cross, the later one stands.
--
-- KEYS 1 the group's routes (hash of inbox to its partition, ":", number of the last change)
-- ARGV 1 the inbox
--      2 its partition
--      3 the number of this change
local old = redis.call("HGET", KEYS[1], ARGV[1])
if not old or tonumber(string.match(old, ":(%d+)$")) < tonumber(ARGV[3]) then
  redis.call("HSET", KEYS[1], ARGV[1], ARGV[2] .. ":" .. ARGV[3])
end
return 1
