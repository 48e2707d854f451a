-- Add to the counters of all processes, once for each number of a process.
--
-- KEYS 1 the counters (hash)
--      2 the number under which this process last added some
-- ARGV 1      a number, greater than the one before; the same if the reply got lost
--      2      seconds for which it is remembered
--      2n + 1 the name of a counter
--      2n + 2 what to add
write_though_full(KEYS[1])
local last = redis.pcall("GET", KEYS[2])
if type(last) == "string" and (tonumber(last) or 0) >= tonumber(ARGV[1]) then
  return 0
end
redis.call("SET", KEYS[2], ARGV[1], "EX", ARGV[2])
for n = 3, #ARGV, 2 do
  if type(redis.pcall("HINCRBY", KEYS[1], ARGV[n], ARGV[n + 1])) == "table" then
    redis.call("HSET", KEYS[1], ARGV[n], ARGV[n + 1]) -- it wasn't a number
  end
end
return 0
