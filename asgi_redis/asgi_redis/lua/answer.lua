-- Send a worker's last answers to one gateway, whatever waits there already.
--
-- KEYS 1 statistics (hash)
--      2 the inbox's register (hash); it exists while a gateway is there
--      3 the inbox (stream, one field "e": channel, newline, payload)
--      4 the queue (list of entries, as in send.lua) where no gateway is there
--      5 its wake list
-- ARGV 1 the expiry of the queue's entries, in milliseconds
--      2… the answers: channel, newline, payload
redis.call("HINCRBY", KEYS[1], "sent", #ARGV - 1)
if redis.call("EXISTS", KEYS[2]) == 1 then
  for n = 2, #ARGV do
    redis.call("XADD", KEYS[3], "*", "e", ARGV[n])
  end
  return 1
end
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local expiry = tonumber(ARGV[1])
for n = 2, #ARGV do
  redis.call("RPUSH", KEYS[4], string.format("%013d0", now + expiry) .. ARGV[n])
end
redis.call("PEXPIRE", KEYS[4], expiry + 1000)
redis.call("DEL", KEYS[5])
redis.call("RPUSH", KEYS[5], "1")
redis.call("PEXPIRE", KEYS[5], expiry + 1000)
return 1
