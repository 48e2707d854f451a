-- Send a message to a group: one record for each gateway that has members, however many.
--
-- KEYS 1 the group's routes (hash, as in add_route.lua)
--      2 its members that no gateway holds (sorted set of channels by the time they were added, in
--        seconds)
-- ARGV 1 the record: newline, payload
--      2 the partition's tag, before the keys of inboxes in it
--      3 the partition
--      4 capacity of an inbox
--      5 the group
--      6 after how many seconds a process-local or single reader's channel stops being a member
--      7 the key that remembers that it was sent, or ""; what was sent goes to other partitions only
-- Returns {members skipped because their inbox is full, {partition:number, inbox, …} of gateways in
-- other partitions, {channels that no gateway holds}}.
local skipped, elsewhere = 0, {}
local new = is_new(ARGV[7])
remember(ARGV[7])
local routes = redis.call("HGETALL", KEYS[1])
for n = 1, #routes, 2 do
  local inbox = routes[n]
  local partition = string.match(routes[n + 1], "^%d+")
  if partition ~= ARGV[3] then
    elsewhere[#elsewhere + 1] = routes[n + 1]
    elsewhere[#elsewhere + 1] = inbox
  elseif redis.call("EXISTS", ARGV[2] .. "g:" .. inbox) == 0 then
    redis.call("HDEL", KEYS[1], inbox)
  elseif new and redis.call("XLEN", ARGV[2] .. "i:" .. inbox) >= tonumber(ARGV[4]) then
    skipped = skipped + redis.call("SCARD", ARGV[2] .. "m:" .. inbox .. ":" .. ARGV[5])
  elseif new then
    add_record(ARGV[2] .. "i:" .. inbox, ARGV[1])
  end
end
local others = {}
if redis.call("EXISTS", KEYS[2]) == 1 then
  local oldest = redis.call("TIME")[1] - tonumber(ARGV[6])
  for _, channel in ipairs(redis.call("ZRANGEBYSCORE", KEYS[2], "-inf", "(" .. oldest)) do
    if string.find(channel, "[!?]") then
      redis.call("ZREM", KEYS[2], channel)
    end
  end
  others = redis.call("ZRANGE", KEYS[2], 0, -1)
end
return {skipped, elsewhere, others}
