-- Renew leases, and look for those that have ended and for what expired; wake a reader where messages wait.
--
-- KEYS 1  leases (sorted set of holder by the time its lease ends, in milliseconds; a holder is "w:" and
--         a worker process, "g:" and a gateway (its inbox, "|", its token), or "t:" and a process that
--         has taken over messages, as long as it holds any)
--      2  gateways that are gone and not yet cleared up after (set)
--      3  what this process has taken over (hash, as in recover.lua)
--      4  expired entries that no process has taken (list of entries, as in prelude.lua)
--      5  queues of shared channels that may hold what expires, but for those of events (set of keys)
--      6… the queues of connections' events (lists of entries); their clients wait to be told
-- ARGV 1  how long a lease lasts, in milliseconds
--      2  the partition's tag, before a channel's "q:" and "w:"
--      3  this process, as it takes over messages ("t:…")
--      4… the other holders in this process
-- Returns {{holders whose lease is gone}, 1 if recover.lua has something to do (else 0), 1 if expire.lua
-- has, milliseconds until the next lease ends unless it is renewed (-1: there is none)}.
local time = now()
local lease = tonumber(ARGV[1])
write_though_full(KEYS[1])
local unfinished = redis.call("EXISTS", KEYS[3])
if unfinished == 1 then
  redis.call("ZADD", KEYS[1], time + lease, ARGV[3])
else
  redis.call("ZREM", KEYS[1], ARGV[3])
end
local missing = {}
for n = 4, #ARGV do
  if redis.call("ZSCORE", KEYS[1], ARGV[n]) then
    redis.call("ZADD", KEYS[1], time + lease, ARGV[n])
  else
    missing[#missing + 1] = ARGV[n]
  end
end
local lost = math.max(unfinished, redis.call("EXISTS", KEYS[2]))
local expired = math.max(unfinished, redis.call("EXISTS", KEYS[4]))
local following = redis.call("ZRANGE", KEYS[1], 0, 0, "WITHSCORES")
local ending = -1
if following[2] then
  ending = math.max(0, tonumber(following[2]) - time)
  if ending == 0 then
    lost = 1
  end
end
local function look_at(queue)
  local head = head_of(queue)
  if head and expires_of(head) <= time then
    expired = 1
  elseif head then
    local wake = ARGV[2] .. "w:" .. string.sub(queue, #ARGV[2] + 3)
    -- Where a token is missing, the reader that took it may have died of it, or be stopped.
    if redis.call("EXISTS", wake) == 0 then
      wake_one(wake, 60000)
    end
  end
  return head
end
if redis.call("EXISTS", unpack(KEYS, 5)) > 0 then
  for n = 6, #KEYS do
    look_at(KEYS[n])
  end
  for _, queue in ipairs(redis.call("SRANDMEMBER", KEYS[5], 100)) do
    if not look_at(queue) then
      redis.call("SREM", KEYS[5], queue)
    end
  end
end
return {missing, lost, expired, ending}
