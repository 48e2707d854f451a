-- Set and clear last wills of a gateway's connections.
--
-- KEYS 1      the gateway's wills (hash, as in send_wills.lua)
--      2      what remembers the number of the last change
-- ARGV 1      the number of this change: one that arrives after a later one does nothing
--      2n     the connection whose will it is
--      2n + 1 its will, or "": it is cleared
if tonumber(ARGV[1]) <= tonumber(redis.call("GET", KEYS[2]) or 0) then
  return 0
end
for n = 2, #ARGV, 2 do
  if ARGV[n + 1] == "" then
    redis.call("HDEL", KEYS[1], ARGV[n])
  else
    redis.call("HSET", KEYS[1], ARGV[n], ARGV[n + 1])
  end
end
redis.call("SET", KEYS[2], ARGV[1], "PX", 3600000)
return 1
