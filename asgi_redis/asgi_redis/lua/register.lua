-- Register a gateway: say that it is there. If its register is gone, or older than it was, the server lost data:
-- the memberships that are left are removed, and the inbox gets a record that says so.
--
-- KEYS 1 the inbox's register (hash: "count", how often this ran; "gen", the number of the last
--        change of a membership; "token", which gateway it is)
--      2 the inbox (stream, as in send_inbox.lua)
--      3 its groups (set of names)
--      4 the queue (list of entries) of what came before the gateway
--      5 its wake list
-- ARGV 1 the last count that the gateway knows of; 0 when it opens the inbox
--      2 the id of the last record it has read, as two numbers: milliseconds
--      3 and sequence
--      4 what says that data was lost: newline, payload
--      5 "1" if it was, or may have been, whatever the register says
--      6 the partition's tag, before the "m:…" keys of its members
--      7 the inbox's name
--      8 what tells this gateway from a former one of that name; "" where another speaks for it
-- Returns {count, 1 if data was lost (else 0), groups that it had members of until then…}.
write_though_full(KEYS[1])
local count = tonumber(redis.call("HGET", KEYS[1], "count") or -1)
if not count then -- it is damaged
  redis.call("DEL", KEYS[1])
  count = -1
end
local known = tonumber(ARGV[1])
local answer = {0, 0}
local lost = known > 0 and (count < known or ARGV[5] == "1")
local former = false
if ARGV[8] ~= "" then
  former = known == 0 and (redis.call("HGET", KEYS[1], "token") or ARGV[8]) ~= ARGV[8]
  redis.call("HSET", KEYS[1], "token", ARGV[8])
end
if lost or former then
  for _, group in ipairs(redis.call("SMEMBERS", KEYS[3])) do
    answer[#answer + 1] = group
    redis.call("DEL", ARGV[6] .. "m:" .. ARGV[7] .. ":" .. group)
  end
  redis.call("DEL", KEYS[3])
end
if former then
  redis.call("XTRIM", KEYS[2], "MAXLEN", 0)
end
if lost then
  -- Where the clock went back, a new stream's ids would lie before what was read.
  local id = "*"
  if tonumber(ARGV[2]) >= now() then
    redis.call("DEL", KEYS[2])
    id = ARGV[2] .. "-" .. string.format("%.0f", tonumber(ARGV[3]) + 1)
  end
  redis.call("XADD", KEYS[2], id, "e", ARGV[4])
  redis.call("HSET", KEYS[1], "count", math.max(count, known))
  answer[2] = 1
end
for _, entry in ipairs(redis.call("LRANGE", KEYS[4], 0, -1)) do
  add_record(KEYS[2], body_of(entry))
end
redis.call("DEL", KEYS[4], KEYS[5])
answer[1] = redis.call("HINCRBY", KEYS[1], "count", 1)
-- If it is lost before its lease was taken, no other process clears up after it.
redis.call("PEXPIRE", KEYS[1], 3600000)
redis.call("PEXPIRE", KEYS[2], 3600000)
return answer
