-- What several scripts share. scripts.py puts the functions that a script names in front of it.
--
-- An entry of a queue is 13 digits (when it expires, in milliseconds since 1970), 1 digit (how many
-- workers were lost with it), and its body: the channel, a newline, the payload. entry.py reads the same.

-- Return the server's time, in milliseconds since 1970.
local function now()
  local time = redis.call("TIME")
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Have the script write although the server's memory is full: it refuses a script's first write, unless
-- that could free some. `key` lies in the script's partition.
local function write_though_full(key)
  redis.call("DEL", key .. ":none")
end

-- Return the entry for `body`.
local function make_entry(expires, losses, body)
  return string.format("%013d%d", expires, losses) .. body
end

-- Return when `entry` expires. Anything else than an entry has expired.
local function expires_of(entry)
  return string.find(entry, "^%d%d%d%d%d%d%d%d%d%d%d%d%d%d") and tonumber(string.sub(entry, 1, 13)) or 0
end

local function losses_of(entry)
  return tonumber(string.sub(entry, 14, 14)) or 0
end

local function body_of(entry)
  return string.sub(entry, 15)
end

-- Return the channel of `entry`, "" for anything else.
local function channel_of(entry)
  local newline = string.find(entry, "\n", 15, true)
  return newline and string.sub(entry, 15, newline - 1) or ""
end

-- Return the first entry of a queue; false if there is none, or something else than a queue.
local function head_of(queue)
  local head = redis.pcall("LINDEX", queue, 0)
  return type(head) == "string" and head
end

-- Keep in `key` what a script hands out, under the holder's own lease.
local function hold_lease(leases, holder, key, ends)
  if redis.call("EXISTS", key) == 1 then
    redis.call("ZADD", leases, ends, holder)
  end
end

-- Return {field, value, …} of those fields of a hash that begin with "expired:" (or, if not `expired`, of
-- the others).
local function taken(key, expired)
  local found = {}
  local held = redis.call("HGETALL", key)
  for n = 1, #held, 2 do
    if (string.sub(held[n], 1, 8) == "expired:") == expired then
      found[#found + 1] = held[n]
      found[#found + 1] = held[n + 1]
    end
  end
  return found
end

-- Put one token on a wake list, which wakes one reader.
local function wake_one(wake, milliseconds)
  redis.call("DEL", wake)
  redis.call("RPUSH", wake, "1")
  redis.call("PEXPIRE", wake, milliseconds)
end

-- Put `entry` at one end of a queue ("RPUSH": the tail, "LPUSH": the head), which stays for
-- `outlives` milliseconds after the entry has expired, and wake a reader.
local function push(command, queue, wake, entry, expiry, outlives)
  redis.call(command, queue, entry)
  if redis.call("PTTL", queue) < expiry + outlives then
    redis.call("PEXPIRE", queue, expiry + outlives)
  end
  wake_one(wake, expiry + 1000)
end

-- After a reader took something: leave one token while the queue holds anything, else none. Where a
-- token is missing, the reader that took it may have died of it.
local function pass_token(queue, wake)
  if redis.call("EXISTS", queue) == 0 then
    redis.call("DEL", wake)
  elseif redis.call("EXISTS", wake) == 0 then
    redis.call("RPUSH", wake, "1")
    redis.call("PEXPIRE", wake, 60000)
  end
end

-- Keep a shared channel's expired `entry` for expire.lua.
local function keep_expired(list, entry)
  redis.call("RPUSH", list, entry)
  redis.call("PEXPIRE", list, 600000)
end

-- Return whether a message is sent for the first time. `id` is the key that remembers it, or "".
local function is_new(id)
  return id == "" or redis.call("EXISTS", id) == 0
end

-- Remember that a message was sent.
local function remember(id)
  if id ~= "" then
    redis.call("SET", id, "1", "PX", 120000)
  end
end

-- Return the number of the last batch that a gateway has sent, and which of its messages were refused ("-": it
-- must not be done any more). `key` remembers it (lua/send.lua).
local function last_batch(key)
  local number, refused = string.match(redis.call("GET", key) or "", "^(%d+):(.*)$")
  return tonumber(number or 0), refused
end

local function remember_batch(key, number, refused)
  redis.call("SET", key, number .. ":" .. refused, "PX", 3600000)
end

-- Add one record to an inbox.
local function add_record(inbox, body)
  redis.call("XADD", inbox, "*", "e", body)
end
