-- Refuse a project whose prefix another one uses, or has delayed messages under.
--
-- KEYS 1 which project uses this prefix: its names, each but the first after a tab. The key expires when no
--        process of the project has been there for a while, and stays while delayed messages do
--      2 what is due later (send_later.lua)
-- ARGV 1 how many milliseconds that is
--      2 this project
--      3… what this project was called before: accepted, too
-- Returns 0, or an error.
write_though_full(KEYS[1])
local found = redis.call("GET", KEYS[1]) or ARGV[2]
local names = "\t" .. found .. "\t"
local has_delayed = redis.call("EXISTS", KEYS[2]) == 1
for n = 2, #ARGV do
  if string.find(names, "\t" .. ARGV[n] .. "\t", 1, true) then
    if n > 2 then
      found = ARGV[2] .. "\t" .. found
    end
    redis.call("SET", KEYS[1], found)
    if not has_delayed then
      redis.call("PEXPIRE", KEYS[1], ARGV[1])
    end
    return 0
  end
end
if not has_delayed and redis.call("PTTL", KEYS[1]) == -1 then
  redis.call("PEXPIRE", KEYS[1], ARGV[1])
end
return redis.error_reply("OTHERPROJECT " .. found)
