-- Send a worker's last replies to one gateway, whatever its inbox's capacity. Twice does no harm: a
-- gateway ignores a reply to an event that has ended.
--
-- KEYS 1 the inbox's register (hash); it exists while a gateway is there
--      2 the inbox (stream, as in send_inbox.lua)
--      3 the queue (list of entries, as in prelude.lua) where no gateway is there
--      4 its wake list
-- ARGV 1 the expiry of the queue's entries, in milliseconds
--      2… the replies: channel, newline, payload
local expiry = tonumber(ARGV[1])
local there = redis.call("EXISTS", KEYS[1]) == 1
for n = 2, #ARGV do
  if there then
    add_record(KEYS[2], ARGV[n])
  else
    push("RPUSH", KEYS[3], KEYS[4], make_entry(now() + expiry, 0, ARGV[n]), expiry, 1000)
  end
end
return 0
