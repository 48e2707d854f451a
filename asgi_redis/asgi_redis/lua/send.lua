-- Put messages on channels of one partition: shared ones, or single readers'.
--
-- KEYS 1      statistics (hash)
--      2      what expired and nobody has looked at (list of entries, as in beat.lua)
--      3      queues that may hold what expires (set of keys, as in beat.lua)
--      2n + 2 the channel's queue (list of entries)
--      2n + 3 its wake list: one token while the queue holds anything
-- ARGV 4n - 3 its capacity, or -1: no limit
--      4n - 2 its expiry, in milliseconds
--      4n - 1 its kind: 0 a single reader's, 1 of a connection's events, 2 another shared one
--      4n     what is sent: channel, newline, payload
-- Returns 0, or the numbers (from 1) of the messages that found their channel full.
--
-- An entry is 13 digits (when it expires, in milliseconds), 1 digit (how often its worker was lost),
-- the channel, a newline, the payload. A shared queue outlives its entries by ten minutes, so that
-- somebody finds them expired.
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local refused = {}
local sent = #ARGV / 4
for n = 1, sent do
  local queue, wake = KEYS[2 * n + 2], KEYS[2 * n + 3]
  local capacity, expiry = tonumber(ARGV[4 * n - 3]), tonumber(ARGV[4 * n - 2])
  local kind = ARGV[4 * n - 1]
  local entry = string.format("%013d0", now + expiry) .. ARGV[4 * n]
  local length = redis.call("RPUSH", queue, entry)
  if capacity >= 0 and length > capacity then
    local head = redis.call("LINDEX", queue, 0)
    while length > 1 and tonumber(string.sub(head, 1, 13)) <= now do
      redis.call("LPOP", queue)
      redis.call("HINCRBY", KEYS[1], "expired", 1)
      if kind ~= "0" then
        redis.call("RPUSH", KEYS[2], head)
        redis.call("PEXPIRE", KEYS[2], 600000)
      end
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
    redis.call("PEXPIRE", queue, expiry + (kind == "0" and 1000 or 600000))
    -- Where a token is missing, somebody has taken it and may have died of it, or be stopped.
    if length == 1 or redis.call("EXISTS", wake) == 0 then
      redis.call("DEL", wake)
      redis.call("RPUSH", wake, "1")
      redis.call("PEXPIRE", wake, expiry + 1000)
      if kind == "2" then
        redis.call("SADD", KEYS[3], queue)
      end
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
