-- Put messages on channels of one partition: shared ones, or single readers'.
--
-- KEYS 1      expired entries that no process has taken (list, as in expire.lua)
--      2      queues that may hold what expires (set of keys, as in heartbeat.lua)
--      2n + 1 the channel's queue (list of entries, as in prelude.lua)
--      2n + 2 its wake list: one token while the queue holds anything
-- ARGV 1      the key that remembers the last batch of the gateway that sends, or ""
--      2      the number of this batch, higher than those before
--      5n - 2 its capacity, or -1: no limit
--      5n - 1 its expiry, in milliseconds
--      5n     its kind: 0 a single reader's, 1 of a connection's events, 2 another shared one
--      5n + 1 the key that remembers that it was sent, or ""
--      5n + 2 the body: channel, newline, payload
-- Returns 0, or the numbers (from 1) of the messages that found their channel full. An error if it is a batch
-- of which the gateway has been told that it did not arrive (settle_batch.lua), or comes twice.
--
-- A shared queue outlives its entries by ten minutes, so that a heartbeat finds them expired.
if ARGV[1] ~= "" and tonumber(ARGV[2]) <= last_batch(ARGV[1]) then
  return redis.error_reply("LATE this batch was sent again")
end
local time = now()
local refused = {}
for n = 1, (#ARGV - 2) / 5 do
  local queue, wake = KEYS[2 * n + 1], KEYS[2 * n + 2]
  local capacity, expiry = tonumber(ARGV[5 * n - 2]), tonumber(ARGV[5 * n - 1])
  local kind, id = ARGV[5 * n], ARGV[5 * n + 1]
  local length = 0
  if is_new(id) then
    length = redis.call("RPUSH", queue, make_entry(time + expiry, 0, ARGV[5 * n + 2]))
  end
  if capacity >= 0 and length > capacity then
    local head = redis.call("LINDEX", queue, 0)
    while length > 1 and expires_of(head) <= time do
      redis.call("LPOP", queue)
      if kind ~= "0" then
        keep_expired(KEYS[1], head)
      end
      length = length - 1
      head = redis.call("LINDEX", queue, 0)
    end
    if length > capacity then
      redis.call("RPOP", queue)
      length = 0
      refused[#refused + 1] = n
    end
  end
  if length > 0 then
    remember(id)
    redis.call("PEXPIRE", queue, expiry + (kind == "0" and 1000 or 600000))
    -- Where a token is missing, the reader that took it may have died of it, or be stopped.
    if length == 1 or redis.call("EXISTS", wake) == 0 then
      wake_one(wake, expiry + 1000)
      if kind == "2" then
        redis.call("SADD", KEYS[2], queue)
      end
    end
  end
end
if ARGV[1] ~= "" then
  remember_batch(ARGV[1], ARGV[2], table.concat(refused, ","))
end
if #refused > 0 then
  return refused
end
return 0
