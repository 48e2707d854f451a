-- Remove a gateway's channel from a group; with its last one there, the route goes.
--
-- KEYS 1 the inbox's register (hash, as in register.lua)
--      2 the inbox (stream, as in send_inbox.lua)
--      3 the group's members there (set of channels)
--      4 the inbox's groups (set of names)
--      5 the group's routes (hash, as in add_route.lua), if they lie in the same partition
-- ARGV 1 the channel
--      2 the group
--      3 the record for the inbox (channel, newline, payload), or "": the gateway knows
--      4 the inbox's name
-- Returns the number of this change, for remove_route.lua, if no member is left; else 0; -1 where no gateway
-- has the inbox open.
if redis.call("EXISTS", KEYS[1]) == 0 then
  return -1
end
if redis.call("SREM", KEYS[3], ARGV[1]) == 1 and ARGV[3] ~= "" then
  add_record(KEYS[2], ARGV[3])
end
if redis.call("EXISTS", KEYS[3]) == 1 then
  return 0
end
redis.call("SREM", KEYS[4], ARGV[2])
if KEYS[5] then
  redis.call("HDEL", KEYS[5], ARGV[4])
end
return redis.call("HINCRBY", KEYS[1], "gen", 1)
