-- Renew a process's leases, take over what dead processes held, and look for what expired, each
-- exactly once; wake a reader where messages wait.
--
-- KEYS 1  leases (sorted set of holder by the time its lease ends, in milliseconds; a holder is
--         "w:" and a worker process, or "g:" and a gateway: its inbox, "|", its token)
--      2  when any process last did this, in milliseconds
--      3  gateways that are gone and not yet cleared up after (set)
--      4  what this process holds (hash, as in claim.lua)
--      5  what is due later (sorted set, as in send_later.lua)
--      6  expired entries that no heartbeat has reported (list of entries, as in prelude.lua)
--      7  queues of shared channels that may hold what expires, but for those of events (set of keys)
--      8… the queues of connections' events (lists of entries); their clients wait to be told
-- ARGV 1  this process ("w:…")
--      2  how long a lease lasts, in milliseconds
--      3  the partition's tag, before the "f:…" keys of what the dead held and a channel's "q:" and "w:"
--      4… the gateways of this process
-- Returns {milliseconds until something is due (-1: nothing is), {gateways whose lease was missing},
-- {field, entry, …: what this process now holds for dead ones as "lost:…", and events that expired as
-- "expired:…"}, {gateways that are gone}, milliseconds until the next lease ends, unless it is renewed,
-- or 0 if more has expired, {channel, how many messages of it expired, …}}.
local time = now()
local lease = tonumber(ARGV[2])
-- A server whose memory is full refuses a script's first write, unless that frees some: a lease is to
-- be kept then too.
local last = tonumber(redis.call("GETDEL", KEYS[2]) or time)
redis.call("SET", KEYS[2], time)
if time - last > lease / 2 then
  -- No process was heard: the server was away, not they. All leases are extended by one lease.
  for _, holder in ipairs(redis.call("ZRANGE", KEYS[1], 0, -1)) do
    redis.call("ZADD", KEYS[1], "GT", time + lease, holder)
  end
end
redis.call("ZADD", KEYS[1], time + lease, ARGV[1])
local missing = {}
for n = 4, #ARGV do
  if redis.call("ZADD", KEYS[1], time + lease, "g:" .. ARGV[n]) == 1 then
    missing[#missing + 1] = ARGV[n]
  end
end
local following = redis.call("ZRANGE", KEYS[1], 0, 0, "WITHSCORES")
local ended = {}
if tonumber(following[2]) <= time then
  ended = redis.call("ZRANGEBYSCORE", KEYS[1], "-inf", time, "LIMIT", 0, 20)
end
for _, holder in ipairs(ended) do
  redis.call("ZREM", KEYS[1], holder)
  local name = string.sub(holder, 3)
  if string.sub(holder, 1, 2) == "g:" then
    redis.call("SADD", KEYS[3], name)
  else
    local held = redis.call("HGETALL", ARGV[3] .. "f:" .. name)
    for n = 1, #held, 2 do
      local field = held[n]
      if string.sub(field, 1, 1) ~= "#" then
        if string.sub(field, 1, 8) ~= "expired:" then
          field = "lost:" .. name .. ":" .. field
        end
        redis.call("HSET", KEYS[4], field, held[n + 1])
      end
    end
    redis.call("DEL", ARGV[3] .. "f:" .. name)
  end
end
local expired, more = {}, false
if redis.call("EXISTS", unpack(KEYS, 6)) > 0 then
  -- So many entries, and bytes, at a time.
  local room, size = 200, 4194304
  local events, counts, batch = {}, {}, nil
  for n = 8, #KEYS do
    events[KEYS[n]] = true
  end
  local function report(entry)
    local channel = channel_of(entry)
    room, size = room - 1, size - #entry
    if string.find(channel, "[!?]") then
      return
    end
    counts[channel] = (counts[channel] or 0) + 1
    if events[ARGV[3] .. "q:" .. channel] then
      batch = batch or redis.call("HINCRBY", KEYS[4], "#expired", 1)
      local field = "expired:" .. ARGV[1] .. ":" .. time .. ":" .. batch .. ":" .. room
      redis.call("HSET", KEYS[4], field, entry)
    end
  end
  local function sweep(queue)
    local head = redis.call("LINDEX", queue, 0)
    local found = false
    while head and expires_of(head) <= time and room > 0 and size > 0 do
      found = true
      redis.call("LPOP", queue)
      report(head)
      head = redis.call("LINDEX", queue, 0)
    end
    local wake = ARGV[3] .. "w:" .. string.sub(queue, #ARGV[3] + 3)
    if found and not head then
      redis.call("DEL", wake)
    elseif head and redis.call("EXISTS", wake) == 0 then
      -- The reader that took the token may have died of it, or be stopped.
      wake_one(wake, 60000)
    end
    return head
  end
  while room > 0 and size > 0 do
    local entry = redis.call("LPOP", KEYS[6])
    if not entry then
      break
    end
    report(entry)
  end
  for n = 8, #KEYS do
    sweep(KEYS[n])
  end
  for _, queue in ipairs(redis.call("SRANDMEMBER", KEYS[7], 100)) do
    if not sweep(queue) then
      redis.call("SREM", KEYS[7], queue)
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
  due = math.max(0, tonumber(first_due[2]) - time)
end
if #ended > 0 then
  following = redis.call("ZRANGE", KEYS[1], 0, 0, "WITHSCORES")
end
local ending = math.max(0, tonumber(following[2]) - time)
if more then
  ending = 0
end
return {due, missing, lost, redis.call("SMEMBERS", KEYS[3]), ending, expired}
