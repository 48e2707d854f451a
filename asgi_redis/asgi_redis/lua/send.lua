-- Put messages on channels of one partition: shared ones, or single readers'.
--
-- KEYS 1      statistics (hash)
--      2n     the channel's queue (list of entries)
--      2n + 1 its wake list: one token while the queue holds anything
-- ARGV 3n - 2 its capacity, or -1: no limit
--      3n - 1 its expiry, in milliseconds
--      3n     what is sent: channel, newline, payload
-- Returns 0, or the numbers (from 1) of the messages that found their channel full.
--
-- An entry is 13 digits (when it expires, in milliseconds), 1 digit (how often its worker was lost),
-- the channel, a newline, the payload.
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local refused = {}
local sent = #ARGV / 3
for n = 1, sent do
  local queue = KEYS[2 * n]
  local capacity, expiry = tonumber(ARGV[3 * n - 2]), tonumber(ARGV[3 * n - 1])
  local entry = string.format("%013d0", now + expiry) .. ARGV[3 * n]
  local length = redis.call("RPUSH", queue, entry)
  if capacity >= 0 and length > capacity then
    local head = redis.call("LINDEX", queue, 0)
    while length > 1 and tonumber(string.sub(head, 1, 13)) <= now do
      redis.call("LPOP", queue)
      redis.call("HINCRBY", KEYS[1], "expired", 1)
      length = length - 1
      head = redis.call("LINDEX", queue, 0)
    end
    if length > capacity then
      redis.call("RPOP", queue)
      length = 0
      refused[#refused + 1] = n
    end
  end
  if length > 0 then
    redis.call("PEXPIRE", queue, expiry + 1000)
    if length == 1 then
      redis.call("DEL", KEYS[2 * n + 1])
      redis.call("RPUSH", KEYS[2 * n + 1], "1")
      redis.call("PEXPIRE", KEYS[2 * n + 1], expiry + 1000)
    end
  end
end
if #refused > 0 then
  redis.call("HINCRBY", KEYS[1], "full", #refused)
  redis.call("HINCRBY", KEYS[1], "sent", sent - #refused)
  return refused
end
redis.call("HINCRBY", KEYS[1], "sent", sent)
return 0
