-- Move what a slot holds, or an entry that nobody does, to the dead letters. The newest are kept.
--
-- KEYS 1 what this process holds (hash of slot to entry)
--      2 the dead letters (stream, fields "r": why, "e": an entry, as in send.lua)
-- ARGV 1 the slot
--      2 why, in a word
--      3 how many dead letters are kept
--      4 the entry, where no slot holds it
-- Returns how many were dropped, since they were too many.
local entry = ARGV[4]
if not entry then
  entry = redis.call("HGET", KEYS[1], ARGV[1])
  if not entry then
    return 0
  end
  redis.call("HDEL", KEYS[1], ARGV[1])
end
redis.call("XADD", KEYS[2], "*", "r", ARGV[2], "e", entry)
return redis.call("XTRIM", KEYS[2], "MAXLEN", ARGV[3])
