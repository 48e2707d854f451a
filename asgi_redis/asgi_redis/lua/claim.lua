-- Acknowledge what a consumer has handled, and claim the next message for it: of one channel, some more.
--
-- Each claim has a number. It is used once, however often the command arrives: where the number is
-- that of the consumer's last claim, its reply got lost, and the same entries are returned again. A
-- lower number is a command that came late, and does nothing.
--
-- KEYS 1      what this process holds (hash of consumer:number:index to entry, and of "#" consumer to
--             the number of its last claim that gave something)
--      2      leases (sorted set of holder by the time its lease ends, in milliseconds)
--      3      expired entries that no process has taken (list, as in expire.lua)
--      2n + 2 a channel's queue (list of entries, as in prelude.lua)
--      2n + 3 its wake list
-- ARGV 1      the consumer
--      2      the number of this claim
--      3      this process, as in the leases
--      4      how long a lease lasts, in milliseconds
--      5      where to begin, from 0: each channel in turn, so that none starves
--      6      which channel, from 1, may give more than one message; 0: none
--      7      how many it may give; 0: nothing is claimed, and the number is used up
--      8…     what is acknowledged: fields of KEYS 1
-- Returns {the number of the consumer's last claim, entries…}; they are held as consumer:number:0,
-- consumer:number:1…
if ARGV[8] then
  redis.call("HDEL", KEYS[1], unpack(ARGV, 8))
end
local number = tonumber(ARGV[2])
local last = tonumber(redis.call("HGET", KEYS[1], "#" .. ARGV[1]) or 0)
if number < last then
  return {last}
end
local prefix = ARGV[1] .. ":" .. ARGV[2] .. ":"
local found = {number}
if number == last then
  local entry = redis.call("HGET", KEYS[1], prefix .. "0")
  while entry do
    found[#found + 1] = entry
    entry = redis.call("HGET", KEYS[1], prefix .. #found - 1)
  end
  return found
end
local most = tonumber(ARGV[7])
if most == 0 then
  redis.call("HSET", KEYS[1], "#" .. ARGV[1], number)
  return found
end
local channels = (#KEYS - 3) / 2
local queues = {}
for n = 1, channels do
  queues[n] = KEYS[2 * n + 2]
end
if channels == 0 or redis.call("EXISTS", unpack(queues)) == 0 then
  return found
end
local time = now()
local held = {"#" .. ARGV[1], number}
for step = 0, channels - 1 do
  local n = (tonumber(ARGV[5]) + step) % channels + 1
  local wanted = n == tonumber(ARGV[6]) and most or 1
  while #found <= wanted do
    -- A key that isn't a list must not stop the other channels.
    local entry = redis.pcall("LPOP", queues[n])
    if type(entry) ~= "string" then
      break
    end
    if expires_of(entry) > time then
      held[#held + 1] = prefix .. #found - 1
      held[#held + 1] = entry
      found[#found + 1] = entry
    else
      keep_expired(KEYS[3], entry)
    end
  end
  if #found > 1 then
    redis.call("HSET", KEYS[1], unpack(held))
    redis.call("ZADD", KEYS[2], "NX", time + tonumber(ARGV[4]), ARGV[3])
    pass_token(queues[n], KEYS[2 * n + 3])
    return found
  end
end
return found
