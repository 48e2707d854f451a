-- Send the last wills that a lost gateway left, up to 500 at a time, each exactly once and whatever
-- the capacity of its channel.
--
-- KEYS 1 the gateway's wills (hash of connection to expiry in milliseconds, ":", channel of the will,
--        newline, payload)
-- ARGV 1 the partition's tag, before the "q:…" and "w:…" keys of the wills' channels
-- Returns how many are left.
local time = now()
local some = redis.call("HRANDFIELD", KEYS[1], 500, "WITHVALUES")
for n = 1, #some, 2 do
  local expiry, body = string.match(some[n + 1], "^(%d+):(.*)$")
  expiry = tonumber(expiry)
  local entry = make_entry(time + expiry, 0, body)
  local channel = channel_of(entry)
  local outlives = string.find(channel, "?", 1, true) and 1000 or 600000
  push("RPUSH", ARGV[1] .. "q:" .. channel, ARGV[1] .. "w:" .. channel, entry, expiry, outlives)
  redis.call("HDEL", KEYS[1], some[n])
end
return redis.call("HLEN", KEYS[1])
