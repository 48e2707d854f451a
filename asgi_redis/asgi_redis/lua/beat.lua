-- Renew a process's leases, and reap those that have ended, each exactly once.
--
-- KEYS 1  leases (sorted set of holder by the time its lease ends, in milliseconds; a holder is
--         "w:" and a worker process, or "g:" and a gateway: its inbox, "|", whose it is)
--      2  when any process last did this, in milliseconds
--      3  gateways that are gone and not yet cleared up after (set)
--      4  what this process holds (hash of slot to entry)
--      5  what is due later (sorted set, as in later.lua)
-- ARGV 1  this process ("w:…")
--      2  how long a lease lasts, in milliseconds
--      3  the partition's tag, before the "f:…" keys of what the dead held
--      4… the gateways of this process
-- Returns {milliseconds until something is due (-1: nothing is), {gateways whose lease was missing},
-- {slot, entry, …: what this process now holds for dead
-- ones}, {gateways that are gone}, milliseconds until the next lease ends, unless it is renewed}.
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease = tonumber(ARGV[2])
local last = tonumber(redis.call("GET", KEYS[2]) or now)
-- A server whose memory is full refuses a script's first write, unless that frees some: a lease is to
-- be kept then too.
redis.call("DEL", KEYS[2])
redis.call("SET", KEYS[2], now)
if now - last > lease / 2 then
  -- Nobody was heard: the server was away, not they. Everybody gets the time of one lease.
  for _, holder in ipairs(redis.call("ZRANGE", KEYS[1], 0, -1)) do
    redis.call("ZADD", KEYS[1], "GT", now + lease, holder)
  end
end
redis.call("ZADD", KEYS[1], now + lease, ARGV[1])
local missing = {}
for n = 4, #ARGV do
  if redis.call("ZADD", KEYS[1], now + lease, "g:" .. ARGV[n]) == 1 then
    missing[#missing + 1] = ARGV[n]
  end
end
for _, holder in ipairs(redis.call("ZRANGEBYSCORE", KEYS[1], "-inf", now, "LIMIT", 0, 20)) do
  redis.call("ZREM", KEYS[1], holder)
  local name = string.sub(holder, 3)
  if string.sub(holder, 1, 2) == "g:" then
    redis.call("SADD", KEYS[3], name)
  else
    local held = redis.call("HGETALL", ARGV[3] .. "f:" .. name)
    for n = 1, #held, 2 do
      redis.call("HSET", KEYS[4], "lost:" .. name .. ":" .. held[n], held[n + 1])
    end
    redis.call("DEL", ARGV[3] .. "f:" .. name)
  end
end
local lost = {}
local held = redis.call("HGETALL", KEYS[4])
for n = 1, #held, 2 do
  if string.sub(held[n], 1, 5) == "lost:" then
    lost[#lost + 1] = held[n]
    lost[#lost + 1] = held[n + 1]
  end
end
local due = -1
local following = redis.call("ZRANGE", KEYS[5], 0, 0, "WITHSCORES")
if following[2] then
  due = math.max(0, tonumber(following[2]) - now)
end
local ending = redis.call("ZRANGE", KEYS[1], 0, 0, "WITHSCORES")
return {due, missing, lost, redis.call("SMEMBERS", KEYS[3]), math.max(0, tonumber(ending[2]) - now)}
