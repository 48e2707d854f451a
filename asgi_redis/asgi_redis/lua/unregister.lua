-- Remove all that a gateway left in the partition of its inbox.
--
-- KEYS 1 the inbox's register (hash)
--      2 the inbox (stream)
--      3 its groups (set of names)
-- ARGV 1 the partition's tag, before the "m:…" keys of its members
--      2 the inbox's name
--      3 its token: if another gateway has opened it since, nothing is removed
-- Returns the groups it had members of: their routes to it must be removed.
if (redis.call("HGET", KEYS[1], "token") or ARGV[3]) ~= ARGV[3] then
  return {}
end
local groups = redis.call("SMEMBERS", KEYS[3])
for _, group in ipairs(groups) do
  redis.call("DEL", ARGV[1] .. "m:" .. ARGV[2] .. ":" .. group)
end
redis.call("DEL", KEYS[1], KEYS[2], KEYS[3])
return groups
