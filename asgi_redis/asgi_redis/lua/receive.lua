-- Take the next message of some channels of one partition, for good.
--
-- KEYS 1      expired entries that no process has taken (list, as in expire.lua)
--      2n     a channel's queue (list of entries, as in prelude.lua)
--      2n + 1 its wake list
-- ARGV 1      where to begin, from 0
--      n + 1  the one channel wanted of a queue that channels share ("x!" for all of "x!…"), or ""
-- Returns the entry, or nil.
local time = now()
local channels = (#KEYS - 1) / 2

local function first(queue, wanted)
  if wanted == "" then
    return redis.call("LPOP", queue)
  end
  for _, entry in ipairs(redis.call("LRANGE", queue, 0, -1)) do
    if channel_of(entry) == wanted then
      redis.call("LREM", queue, 1, entry)
      return entry
    end
  end
  return false
end

for step = 0, channels - 1 do
  local n = (tonumber(ARGV[1]) + step) % channels + 1
  local queue, wake, wanted = KEYS[2 * n], KEYS[2 * n + 1], ARGV[n + 1]
  local entry = first(queue, wanted)
  while entry do
    if expires_of(entry) > time then
      pass_token(queue, wake)
      return entry
    end
    -- Only a shared channel's is reported.
    if not string.find(channel_of(entry), "[!?]") then
      keep_expired(KEYS[1], entry)
    end
    entry = first(queue, wanted)
  end
end
return nil
