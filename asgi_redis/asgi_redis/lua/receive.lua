-- Take the next message of some channels of one partition, for good.
--
-- KEYS 1      statistics (hash)
--      2      what expired and nobody has looked at (list of entries, as in beat.lua)
--      2n + 1 a channel's queue (list of entries, as in send.lua)
--      2n + 2 its wake list
-- ARGV 1      where to begin, from 0
--      n + 1  the one channel wanted of a queue that channels share ("x!" for all of "x!…"), or ""
-- Returns the entry, or nil.
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local channels = (#KEYS - 2) / 2

local function first(queue, wanted)
  if wanted == "" then
    return redis.call("LPOP", queue)
  end
  for _, entry in ipairs(redis.call("LRANGE", queue, 0, -1)) do
    local stop = string.find(entry, "\n", 15, true)
    if string.sub(entry, 15, stop - 1) == wanted then
      redis.call("LREM", queue, 1, entry)
      return entry
    end
  end
  return false
end

for step = 0, channels - 1 do
  local n = (tonumber(ARGV[1]) + step) % channels + 1
  local queue, wake, wanted = KEYS[2 * n + 1], KEYS[2 * n + 2], ARGV[n + 1]
  local entry = first(queue, wanted)
  while entry do
    if tonumber(string.sub(entry, 1, 13)) > now then
      if redis.call("EXISTS", queue) == 0 then
        redis.call("DEL", wake)
      elseif redis.call("EXISTS", wake) == 0 then
        redis.call("RPUSH", wake, "1")
        redis.call("PEXPIRE", wake, 60000)
      end
      return entry
    end
    redis.call("HINCRBY", KEYS[1], "expired", 1)
    -- Of a single reader's, or a process-local one, nobody is told.
    if not string.find(string.sub(entry, 15, string.find(entry, "\n", 15, true)), "[!?]") then
      redis.call("RPUSH", KEYS[2], entry)
      redis.call("PEXPIRE", KEYS[2], 600000)
    end
    entry = first(queue, wanted)
  end
end
return nil
