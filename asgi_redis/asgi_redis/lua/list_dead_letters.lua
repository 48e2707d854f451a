-- List dead letters, the oldest first.
--
-- KEYS 1 the dead letters (stream, as in dead_letter.lua)
-- ARGV 1 the id to begin after, or "-"
--      2 how many
-- Returns id, why, entry of each, one after the other.
local start = ARGV[1]
if start ~= "-" then
  start = "(" .. start
end
local found = {}
for _, letter in ipairs(redis.call("XRANGE", KEYS[1], start, "+", "COUNT", ARGV[2])) do
  found[#found + 1] = letter[1]
  found[#found + 1] = letter[2][2] or ""
  found[#found + 1] = letter[2][4] or ""
end
return found
