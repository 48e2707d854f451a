-- Take what expired: events are held by this process until their gateways have been told, other messages
-- are counted. So many, and so many bytes, at a time.
--
-- KEYS 1  leases (sorted set, as in heartbeat.lua)
--      2  what this process has taken over (hash, as in recover.lua)
--      3  expired entries that no process has taken (list of entries, as in prelude.lua)
--      4  queues of shared channels that may hold what expires, but for those of events (set of keys)
--      5… the queues of connections' events (lists of entries)
-- ARGV 1  this process, as it takes over messages ("t:…")
--      2  how long a lease lasts, in milliseconds
--      3  the partition's tag, before a channel's "q:" and "w:"
--      4  what makes the fields of this call unique
-- Returns {{field, entry, …}, {channel, how many messages of it expired, …}}.
write_though_full(KEYS[1])
local time = now()
local room, size = 200, 4194304
local events, counts = {}, {}
for n = 5, #KEYS do
  events[KEYS[n]] = true
end
local function report(entry)
  local channel = channel_of(entry)
  room, size = room - 1, size - #entry
  -- What is damaged becomes a dead letter.
  if events[ARGV[3] .. "q:" .. channel] or channel == "" or expires_of(entry) == 0 then
    redis.call("HSET", KEYS[2], "expired:" .. ARGV[4] .. ":" .. room, entry)
  else
    counts[channel] = (counts[channel] or 0) + 1
  end
end
local function sweep(queue)
  local head = head_of(queue)
  while head and expires_of(head) <= time and room > 0 and size > 0 do
    redis.call("LPOP", queue)
    report(head)
    head = head_of(queue)
  end
  pass_token(queue, ARGV[3] .. "w:" .. string.sub(queue, #ARGV[3] + 3))
  return head
end
while room > 0 and size > 0 do
  local entry = redis.call("LPOP", KEYS[3])
  if not entry then
    break
  end
  report(entry)
end
for n = 5, #KEYS do
  sweep(KEYS[n])
end
for _, queue in ipairs(redis.call("SRANDMEMBER", KEYS[4], 100)) do
  if not sweep(queue) then
    redis.call("SREM", KEYS[4], queue)
  end
end
local counted = {}
for channel, count in pairs(counts) do
  counted[#counted + 1] = channel
  counted[#counted + 1] = count
end
hold_lease(KEYS[1], ARGV[1], KEYS[2], time + tonumber(ARGV[2]))
return {taken(KEYS[2], true), counted}
