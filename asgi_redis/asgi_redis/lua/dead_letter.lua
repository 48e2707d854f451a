-- Move what a process holds, or an entry that no process holds, to the dead letters. The newest are kept.
--
-- KEYS 1 what this process holds (hash, as in claim.lua or recover.lua)
--      2 the dead letters (stream, fields "r": why, "e": an entry, as in prelude.lua)
-- ARGV 1 the field of KEYS 1
--      2 why, in a word
--      3 how many dead letters are kept
--      4 the entry, if no process holds it
-- Returns how many were dropped because more than that were there.
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
