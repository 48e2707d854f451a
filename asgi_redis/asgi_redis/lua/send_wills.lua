-- Send the last wills that a lost gateway left, up to 500 at a time, each exactly once and whatever
-- the capacity of its channel. One that cannot be read becomes a dead letter. One for a single reader or a
-- process-local channel is for the caller to send, because its channel may lie in another partition; it stays
-- until the caller has.
--
-- KEYS 1 the gateway's wills (hash of connection to expiry in milliseconds, ":", channel of the will,
--        newline, payload)
--      2 connections of the gateway whose will was sent (set), in case the gateway was only cut off
--      3 the dead letters (stream, as in dead_letter.lua)
-- ARGV 1 the partition's tag, before the "q:…" and "w:…" keys of the wills' channels
--      2 how many dead letters are kept
--      3… connections whose will the caller has sent
-- Returns {how many are left, {wills that cannot be read…}, {connection, will for the caller to send, …}}.
local time = now()
local unreadable, single = {}, {}
local function forget(connection)
  redis.call("HDEL", KEYS[1], connection)
  redis.call("SADD", KEYS[2], connection)
end
for n = 3, #ARGV do
  forget(ARGV[n])
end
local some = redis.call("HRANDFIELD", KEYS[1], 500, "WITHVALUES")
for n = 1, #some, 2 do
  local expiry, channel = string.match(some[n + 1], "^(%d+):([%w%.%-_?!]+)\n")
  if not expiry or #expiry >= 12 then
    redis.call("XADD", KEYS[3], "*", "r", "unreadable", "e", make_entry(0, 0, some[n + 1]))
    unreadable[#unreadable + 1] = some[n + 1]
    forget(some[n])
  elseif string.find(channel, "[?!]") then
    single[#single + 1] = some[n]
    single[#single + 1] = some[n + 1]
  else
    local body = string.sub(some[n + 1], #expiry + 2)
    local queue, wake = ARGV[1] .. "q:" .. channel, ARGV[1] .. "w:" .. channel
    expiry = tonumber(expiry)
    push("RPUSH", queue, wake, make_entry(time + expiry, 0, body), expiry, 600000)
    forget(some[n])
  end
end
redis.call("PEXPIRE", KEYS[2], 3600000)
if #unreadable > 0 then
  redis.call("XTRIM", KEYS[3], "MAXLEN", ARGV[2])
end
return {redis.call("HLEN", KEYS[1]), unreadable, single}
