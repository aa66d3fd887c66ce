-- Record that a process lives, and list all that are known. A stamp says only whether it has changed: how long a
-- process has been silent, each reader measures by its own clock.
-- KEYS: the nodes.
-- ARGV: boot, name, where switches reach it, '1' while it drains.
-- Returns each boot and its entry.

local time = redis.call('TIME')
local stamp = string.format('%d.%06d', time[1], time[2])
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode({ARGV[2], ARGV[3], ARGV[4] == '1', stamp}))
return redis.call('HGETALL', KEYS[1])
