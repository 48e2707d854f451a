-- Acknowledge what a slot has done, and claim the next message for it: of one channel, some more.
--
-- KEYS 1      what this process holds (hash of slot, or slot "+" number, to entry)
--      2      leases (sorted set of holder by the time its lease ends, in milliseconds)
--      3      statistics (hash)
--      4      what expired and nobody has looked at (list of entries, as in beat.lua)
--      2n + 3 a channel's queue (list of entries, as in send.lua)
--      2n + 4 its wake list
-- ARGV 1      the slot
--      2      this process, as in the leases
--      3      how long a lease lasts, in milliseconds
--      4      where to begin, from 0: each channel in turn, so that none starves
--      5      which channel, from 1, may give more than one message; 0: none
--      6      how many it may give
--      7…     what is acknowledged: fields of KEYS 1
-- Returns the entries, held as slot, slot+1, slot+2…; or nil.
if ARGV[7] then
  redis.call("HDEL", KEYS[1], unpack(ARGV, 7))
end
-- What it still holds was given by a claim whose reply got lost: it is given again.
local again = {}
local entry = redis.call("HGET", KEYS[1], ARGV[1])
while entry do
  again[#again + 1] = entry
  entry = redis.call("HGET", KEYS[1], ARGV[1] .. "+" .. #again)
end
if #again > 0 then
  return again
end
local channels = (#KEYS - 4) / 2
local queues = {}
for n = 1, channels do
  queues[n] = KEYS[2 * n + 3]
end
if channels == 0 or redis.call("EXISTS", unpack(queues)) == 0 then
  return nil
end
local now
local found, held = {}, {}
for step = 0, channels - 1 do
  local n = (tonumber(ARGV[4]) + step) % channels + 1
  local wanted = 1
  if n == tonumber(ARGV[5]) then
    wanted = tonumber(ARGV[6])
  end
  while #found < wanted do
    local entry = redis.call("LPOP", queues[n])
    if not entry then
      break
    end
    if not now then
      local time = redis.call("TIME")
      now = time[1] * 1000 + math.floor(time[2] / 1000)
    end
    if tonumber(string.sub(entry, 1, 13)) > now then
      held[#held + 1] = #found == 0 and ARGV[1] or ARGV[1] .. "+" .. #found
      held[#held + 1] = entry
      found[#found + 1] = entry
    else
      redis.call("HINCRBY", KEYS[3], "expired", 1)
      redis.call("RPUSH", KEYS[4], entry)
      redis.call("PEXPIRE", KEYS[4], 600000)
    end
  end
  if #found > 0 then
    redis.call("HSET", KEYS[1], unpack(held))
    redis.call("ZADD", KEYS[2], "NX", now + tonumber(ARGV[3]), ARGV[2])
    if redis.call("EXISTS", queues[n]) == 0 then
      redis.call("DEL", KEYS[2 * n + 4])
    elseif redis.call("EXISTS", KEYS[2 * n + 4]) == 0 then
      redis.call("RPUSH", KEYS[2 * n + 4], "1")
      redis.call("PEXPIRE", KEYS[2 * n + 4], 60000)
    end
    return found
  end
end
return nil
