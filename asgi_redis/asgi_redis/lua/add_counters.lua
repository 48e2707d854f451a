-- Add to the counters of all processes.
--
-- KEYS 1 the counters (hash)
-- ARGV 2n - 1 the name of a counter
--      2n     what to add
write_though_full(KEYS[1])
for n = 1, #ARGV, 2 do
  if type(redis.pcall("HINCRBY", KEYS[1], ARGV[n], ARGV[n + 1])) == "table" then
    redis.call("HSET", KEYS[1], ARGV[n], ARGV[n + 1]) -- it wasn't a number
  end
end
return 0
