-- Send one message to a process-local channel: into the stream of its inbox where a gateway has
-- opened it, else into a queue, which expires.
--
-- KEYS 1 the inbox's register (hash); it exists while a gateway is there
--      2 the inbox (stream, one field "e": channel, newline, payload)
--      3 the queue (list of entries, as in prelude.lua) for readers without a gateway
--      4 its wake list
-- ARGV 1 capacity of the inbox, or -1: no limit
--      2 capacity of the channel, or -1: no limit
--      3 its expiry, in milliseconds
--      4 the body: channel, newline, payload
--      5 the key that remembers that it was sent, or ""
-- Returns 0, or {1} where it is full: the numbers of the refused, as send.lua does.
if not is_new(ARGV[5]) then
  return 0
end
if redis.call("EXISTS", KEYS[1]) == 1 then
  local capacity = tonumber(ARGV[1])
  if capacity >= 0 and redis.call("XLEN", KEYS[2]) >= capacity then
    return {1}
  end
  add_record(KEYS[2], ARGV[4])
  remember(ARGV[5])
  return 0
end
local time = now()
local capacity, expiry = tonumber(ARGV[2]), tonumber(ARGV[3])
local head = redis.call("LINDEX", KEYS[3], 0)
while head and expires_of(head) <= time do
  redis.call("LPOP", KEYS[3])
  head = redis.call("LINDEX", KEYS[3], 0)
end
if capacity >= 0 and redis.call("LLEN", KEYS[3]) >= capacity then
  return {1}
end
push("RPUSH", KEYS[3], KEYS[4], make_entry(time + expiry, 0, ARGV[4]), expiry, 1000)
remember(ARGV[5])
return 0
