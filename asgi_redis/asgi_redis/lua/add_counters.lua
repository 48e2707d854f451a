-- Add to the counters of all processes.
--
-- KEYS 1 the counters (hash)
-- ARGV 2n - 1 the name of a counter
--      2n     what to add
-- A server whose memory is full refuses a script's first write, unless that frees some. Counters are
-- added up all the same, because a heartbeat does it.
redis.call("HDEL", KEYS[1], "")
for n = 1, #ARGV, 2 do
  redis.call("HINCRBY", KEYS[1], ARGV[n], ARGV[n + 1])
end
return 0
