-- Send the last wills that a lost gateway left, up to 500 at a time, each exactly once and whatever
-- the capacity of its channel. One that cannot be read becomes a dead letter.
--
-- KEYS 1 the gateway's wills (hash of connection to expiry in milliseconds, ":", channel of the will,
--        newline, payload)
--      2 connections of the gateway whose will was sent (set), in case the gateway was only cut off
--      3 the dead letters (stream, as in dead_letter.lua)
-- ARGV 1 the partition's tag, before the "q:…" and "w:…" keys of the wills' channels
--      2 how many dead letters are kept
-- Returns {how many are left, wills that cannot be read…}.
local time = now()
local some = redis.call("HRANDFIELD", KEYS[1], 500, "WITHVALUES")
local unreadable = {}
for n = 1, #some, 2 do
  local expiry, channel = string.match(some[n + 1], "^(%d+):([%w%.%-_?]+)\n")
  if expiry and #expiry < 12 then
    local body = string.sub(some[n + 1], #expiry + 2)
    local outlives = string.find(channel, "?", 1, true) and 1000 or 600000
    expiry = tonumber(expiry)
    local queue, wake = ARGV[1] .. "q:" .. channel, ARGV[1] .. "w:" .. channel
    push("RPUSH", queue, wake, make_entry(time + expiry, 0, body), expiry, outlives)
  else
    redis.call("XADD", KEYS[3], "*", "r", "unreadable", "e", make_entry(0, 0, some[n + 1]))
    unreadable[#unreadable + 1] = some[n + 1]
  end
  redis.call("HDEL", KEYS[1], some[n])
  redis.call("SADD", KEYS[2], some[n])
end
redis.call("PEXPIRE", KEYS[2], 3600000)
if #unreadable > 0 then
  redis.call("XTRIM", KEYS[3], "MAXLEN", ARGV[2])
end
return {redis.call("HLEN", KEYS[1]), unpack(unreadable)}
