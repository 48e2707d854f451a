-- Make a gateway's channel a member of a group: in its inbox first, then in the group's route.
--
-- KEYS 1 the inbox's register (hash, as in register.lua)
--      2 the inbox (stream, as in send_inbox.lua)
--      3 the group's members there (set of channels)
--      4 the inbox's groups (set of names)
--      5 the group's routes (hash, as in add_route.lua), if they lie in the same partition
-- ARGV 1 the channel
--      2 the group
--      3 the record for the inbox: channel, newline, payload
--      4 the inbox's name
--      5 its partition
-- Returns the number of this change, for add_route.lua; -1 where no gateway has the inbox open.
if redis.call("EXISTS", KEYS[1]) == 0 then
  return -1
end
local number = redis.call("HINCRBY", KEYS[1], "gen", 1)
if redis.call("SADD", KEYS[3], ARGV[1]) == 1 then
  redis.call("SADD", KEYS[4], ARGV[2])
  add_record(KEYS[2], ARGV[3])
end
if KEYS[5] then
  redis.call("HSET", KEYS[5], ARGV[4], ARGV[5] .. ":" .. number)
end
return number
