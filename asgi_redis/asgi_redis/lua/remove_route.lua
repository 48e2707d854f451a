-- Remove the route of a group to an inbox, unless a later change put it there.
--
-- KEYS 1 the group's routes (hash, as in add_route.lua)
-- ARGV 1 the inbox
--      2 the number of this change, or -1: in any case
local old = redis.call("HGET", KEYS[1], ARGV[1])
local number = tonumber(ARGV[2])
if old and (number < 0 or tonumber(string.match(old, ":(%d+)$")) <= number) then
  redis.call("HDEL", KEYS[1], ARGV[1])
end
return 1
