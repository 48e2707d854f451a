-- Move what a slot holds to the dead letters.
--
-- KEYS 1 what this process holds (hash of slot to entry)
--      2 the dead letters (stream, fields "r": why, "e": an entry, as in send.lua)
-- ARGV 1 the slot
--      2 why, in a word
--      3 how many dead letters are kept, about
-- Returns 1, or 0 if the slot holds nothing.
local entry = redis.call("HGET", KEYS[1], ARGV[1])
if not entry then
  return 0
end
redis.call("HDEL", KEYS[1], ARGV[1])
redis.call("XADD", KEYS[2], "MAXLEN", "~", ARGV[3], "*", "r", ARGV[2], "e", entry)
return 1
