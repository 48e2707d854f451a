-- Refuse a project whose prefix another one uses.
--
-- KEYS 1  which project uses this prefix; it goes when no process of the project has been there for a while
-- ARGV 1  how many milliseconds that is
--      2  this project
--      3… what this project was called before: accepted, too
-- Returns 0, or an error.
write_though_full(KEYS[1])
local found = redis.call("GET", KEYS[1])
for n = 2, #ARGV do
  if not found or found == ARGV[n] then
    redis.call("SET", KEYS[1], found or ARGV[n], "PX", ARGV[1])
    return 0
  end
end
return redis.error_reply("OTHERPROJECT " .. found)
