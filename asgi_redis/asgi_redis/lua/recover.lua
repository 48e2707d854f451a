-- Take over what processes held whose lease has ended, each exactly once.
--
-- KEYS 1 leases (sorted set, as in heartbeat.lua)
--      2 gateways that are gone and not yet cleared up after (set)
--      3 what this process has taken over (hash of field to entry: "lost:…" what workers held that died,
--        "expired:…" events that expired). While it holds any, the process has a lease for it.
-- ARGV 1 this process, as it takes over messages ("t:…")
--      2 how long a lease lasts, in milliseconds
--      3 the partition's tag, before the "f:…" and "t:…" keys of what the dead held
-- Returns {{holders whose lease has ended}, {field, entry, …}, {gateways to clear up after}}.
write_though_full(KEYS[1])
local time = now()
local ended = redis.call("ZRANGEBYSCORE", KEYS[1], "-inf", time, "LIMIT", 0, 20)
local names = {}
local function take(key, prefix)
  local held = redis.call("HGETALL", key)
  for n = 1, #held, 2 do
    if string.sub(held[n], 1, 1) ~= "#" then
      redis.call("HSET", KEYS[3], prefix .. held[n], held[n + 1])
    end
  end
  redis.call("DEL", key)
end
for _, holder in ipairs(ended) do
  redis.call("ZREM", KEYS[1], holder)
  local kind, name = string.sub(holder, 1, 2), string.sub(holder, 3)
  if kind == "g:" then
    redis.call("SADD", KEYS[2], name)
  elseif kind == "w:" then
    take(ARGV[3] .. "f:" .. name, "lost:" .. name .. ":")
  elseif holder ~= ARGV[1] then
    take(ARGV[3] .. "t:" .. name, "")
  end
  if kind ~= "t:" then
    names[#names + 1] = holder
  end
end
hold_lease(KEYS[1], ARGV[1], KEYS[3], time + tonumber(ARGV[2]))
return {names, taken(KEYS[3], false), redis.call("SMEMBERS", KEYS[2])}
