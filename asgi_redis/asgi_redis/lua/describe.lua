-- Describe queues or inboxes of one partition, for statistics.
--
-- KEYS n  queues (lists of entries, as in prelude.lua) or inboxes (streams, as in send_inbox.lua)
-- Returns {milliseconds since 1970, then for each: how many messages; of its first, when it expires
-- (a queue) or came (an inbox) in milliseconds, or 0; and its channel}.
local answer = {now()}
for _, key in ipairs(KEYS) do
  local kind = redis.call("TYPE", key)["ok"]
  local length, stamp, channel = 0, 0, ""
  if kind == "list" then
    length = redis.call("LLEN", key)
    local head = redis.call("LINDEX", key, 0)
    stamp, channel = expires_of(head), channel_of(head)
  elseif kind == "stream" then
    length = redis.call("XLEN", key)
    local head = redis.call("XRANGE", key, "-", "+", "COUNT", 1)[1]
    if head then
      stamp = tonumber(string.match(head[1], "^%d+"))
    end
  end
  answer[#answer + 1] = length
  answer[#answer + 1] = stamp
  answer[#answer + 1] = channel
end
return answer
