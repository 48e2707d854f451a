-- Take a lease, or renew it.
--
-- KEYS 1 leases (sorted set, as in heartbeat.lua)
-- ARGV 1 the holder
--      2 how long a lease lasts, in milliseconds
write_though_full(KEYS[1])
return redis.call("ZADD", KEYS[1], now() + tonumber(ARGV[2]), ARGV[1])
