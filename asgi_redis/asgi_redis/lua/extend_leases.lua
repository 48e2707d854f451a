-- Extend all leases by one lease from now.
--
-- KEYS 1 leases (sorted set, as in heartbeat.lua)
-- ARGV 1 how long a lease lasts, in milliseconds
write_though_full(KEYS[1])
local ends = now() + tonumber(ARGV[1])
for _, holder in ipairs(redis.call("ZRANGE", KEYS[1], 0, -1)) do
  redis.call("ZADD", KEYS[1], "GT", ends, holder)
end
return 0
