-- Put one group message into inboxes of one partition that is not the group's.
--
-- KEYS 3n - 2 an inbox's register (hash)
--      3n - 1 the inbox (stream, as in send_inbox.lua)
--      3n     the group's members there (set of channels)
-- ARGV 1      the record: newline, payload
--      2      capacity of an inbox
--      3      the key that remembers that it was sent, or ""
-- Returns how many members were skipped because their inbox is full.
local skipped = 0
if not is_new(ARGV[3]) then
  return 0
end
remember(ARGV[3])
for n = 1, #KEYS, 3 do
  if redis.call("EXISTS", KEYS[n]) == 1 then
    if redis.call("XLEN", KEYS[n + 1]) >= tonumber(ARGV[2]) then
      skipped = skipped + redis.call("SCARD", KEYS[n + 2])
    else
      add_record(KEYS[n + 1], ARGV[1])
    end
  end
end
return skipped
