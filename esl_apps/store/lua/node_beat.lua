-- Record that a process lives, and list all that are known. The time is Redis's own.
-- KEYS: the nodes.
-- ARGV: boot, name, where switches reach it, '1' while it drains.
-- Returns each boot and its entry, with the seconds since its last beat in place of the time.

local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode({ARGV[2], ARGV[3], ARGV[4] == '1', string.format('%.3f', now)}))
local all = redis.call('HGETALL', KEYS[1])
for i = 2, #all, 2 do
  local one = cjson.decode(all[i])
  if tonumber(one[4]) >= 0 then one[4] = string.format('%.3f', now - tonumber(one[4])) end
  all[i] = cjson.encode(one)
end
return all
