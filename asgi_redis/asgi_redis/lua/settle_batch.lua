-- Tell a gateway that got no reply to a batch whether it was done. If it wasn't, it never will be.
--
-- KEYS 1 what remembers the gateway's last batch (send.lua)
-- ARGV 1 the number of the batch
-- Returns false if it wasn't done, else the numbers of the messages that were refused: text, with commas.
local last, refused = last_batch(KEYS[1])
if last < tonumber(ARGV[1]) then
  remember_batch(KEYS[1], ARGV[1], "-")
  return false
end
return refused ~= "-" and refused
