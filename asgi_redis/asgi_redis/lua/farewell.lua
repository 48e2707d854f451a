-- Send the farewells that a lost gateway left, up to 500 at a time, each exactly once and whatever
-- the capacity of its channel.
--
-- KEYS 1 the connections it held (hash of channel to expiry in milliseconds, ":", channel of the
--        farewell, newline, payload)
--      2 statistics (hash)
-- ARGV 1 the partition's tag, before the "q:…" and "w:…" keys of the farewells' channels
-- Returns how many are left.
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local some = redis.call("HRANDFIELD", KEYS[1], 500, "WITHVALUES")
for n = 1, #some, 2 do
  local colon = string.find(some[n + 1], ":", 1, true)
  local expiry = tonumber(string.sub(some[n + 1], 1, colon - 1))
  local body = string.sub(some[n + 1], colon + 1)
  local channel = string.sub(body, 1, string.find(body, "\n", 1, true) - 1)
  local queue, wake = ARGV[1] .. "q:" .. channel, ARGV[1] .. "w:" .. channel
  redis.call("RPUSH", queue, string.format("%013d0", now + expiry) .. body)
  local lasts = string.find(channel, "?", 1, true) and 1000 or 600000
  redis.call("PEXPIRE", queue, expiry + lasts)
  redis.call("DEL", wake)
  redis.call("RPUSH", wake, "1")
  redis.call("PEXPIRE", wake, expiry + 1000)
  redis.call("HDEL", KEYS[1], some[n])
end
redis.call("HINCRBY", KEYS[2], "sent", #some / 2)
return redis.call("HLEN", KEYS[1])
