-- Renew a process's leases; reap those that have ended, and look for what expired, each exactly once;
-- wake somebody where messages wait.
--
-- KEYS 1  leases (sorted set of holder by the time its lease ends, in milliseconds; a holder is
--         "w:" and a worker process, or "g:" and a gateway: its inbox, "|", whose it is)
--      2  when any process last did this, in milliseconds
--      3  gateways that are gone and not yet cleared up after (set)
--      4  what this process holds (hash of slot to entry)
--      5  what is due later (sorted set, as in later.lua)
--      6  statistics (hash)
--      7  what others found expired, and nobody has looked at (list of entries, as in send.lua)
--      8  queues of shared channels that may hold what expires, but for those of events (set of keys)
--      9… the queues of connections' events (lists of entries); their clients wait to be told
-- ARGV 1  this process ("w:…")
--      2  how long a lease lasts, in milliseconds
--      3  the partition's tag, before the "f:…" keys of what the dead held and a channel's "q:" and "w:"
--      4… the gateways of this process
-- Returns {milliseconds until something is due (-1: nothing is), {gateways whose lease was missing},
-- {slot, entry, …: what this process now holds for dead ones as "lost:…", and events that expired as
-- "expired:…"}, {gateways that are gone}, milliseconds until the next lease ends, unless it is renewed,
-- or 0 if more has expired, {channel, how many messages of it expired, …}}.
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease = tonumber(ARGV[2])
-- A server whose memory is full refuses a script's first write, unless that frees some: a lease is to
-- be kept then too.
local last = tonumber(redis.call("GETDEL", KEYS[2]) or now)
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
local following = redis.call("ZRANGE", KEYS[1], 0, 0, "WITHSCORES")
local ended = {}
if tonumber(following[2]) <= now then
  ended = redis.call("ZRANGEBYSCORE", KEYS[1], "-inf", now, "LIMIT", 0, 20)
end
for _, holder in ipairs(ended) do
  redis.call("ZREM", KEYS[1], holder)
  local name = string.sub(holder, 3)
  if string.sub(holder, 1, 2) == "g:" then
    redis.call("SADD", KEYS[3], name)
  else
    local held = redis.call("HGETALL", ARGV[3] .. "f:" .. name)
    for n = 1, #held, 2 do
      local slot = held[n]
      if string.sub(slot, 1, 8) ~= "expired:" then
        slot = "lost:" .. name .. ":" .. slot
      end
      redis.call("HSET", KEYS[4], slot, held[n + 1])
    end
    redis.call("DEL", ARGV[3] .. "f:" .. name)
  end
end
local expired, more = {}, false
if redis.call("EXISTS", unpack(KEYS, 7)) > 0 then
  -- So many entries, and bytes, at a time.
  local room, size = 200, 4194304
  local events, counts = {}, {}
  for n = 9, #KEYS do
    events[KEYS[n]] = true
  end
  local function give_up(entry)
    local channel = string.sub(entry, 15, string.find(entry, "\n", 15, true) - 1)
    room, size = room - 1, size - #entry
    if string.find(channel, "[!?]") then
      return
    end
    counts[channel] = (counts[channel] or 0) + 1
    if events[ARGV[3] .. "q:" .. channel] then
      redis.call("HSET", KEYS[4], "expired:" .. ARGV[1] .. ":" .. now .. ":" .. room, entry)
    end
  end
  local function sweep(queue)
    local head = redis.call("LINDEX", queue, 0)
    local found = false
    while head and tonumber(string.sub(head, 1, 13)) <= now and room > 0 and size > 0 do
      found = true
      redis.call("LPOP", queue)
      redis.call("HINCRBY", KEYS[6], "expired", 1)
      give_up(head)
      head = redis.call("LINDEX", queue, 0)
    end
    local wake = ARGV[3] .. "w:" .. string.sub(queue, #ARGV[3] + 3)
    if found and not head then
      redis.call("DEL", wake)
    elseif head and redis.call("EXISTS", wake) == 0 then
      -- Who took the token may have died of it, or be stopped.
      redis.call("RPUSH", wake, "1")
      redis.call("PEXPIRE", wake, 60000)
    end
    return head
  end
  while room > 0 and size > 0 do
    local entry = redis.call("LPOP", KEYS[7])
    if not entry then
      break
    end
    give_up(entry)
  end
  for n = 9, #KEYS do
    sweep(KEYS[n])
  end
  for _, queue in ipairs(redis.call("SRANDMEMBER", KEYS[8], 100)) do
    if not sweep(queue) then
      redis.call("SREM", KEYS[8], queue)
    end
  end
  for channel, count in pairs(counts) do
    expired[#expired + 1] = channel
    expired[#expired + 1] = count
  end
  more = room <= 0 or size <= 0
end
local lost = {}
local held = redis.call("HGETALL", KEYS[4])
for n = 1, #held, 2 do
  if string.sub(held[n], 1, 5) == "lost:" or string.sub(held[n], 1, 8) == "expired:" then
    lost[#lost + 1] = held[n]
    lost[#lost + 1] = held[n + 1]
  end
end
local due = -1
local first_due = redis.call("ZRANGE", KEYS[5], 0, 0, "WITHSCORES")
if first_due[2] then
  due = math.max(0, tonumber(first_due[2]) - now)
end
if #ended > 0 then
  following = redis.call("ZRANGE", KEYS[1], 0, 0, "WITHSCORES")
end
local ending = math.max(0, tonumber(following[2]) - now)
if more then
  ending = 0
end
return {due, missing, lost, redis.call("SMEMBERS", KEYS[3]), ending, expired}
