-- Open a lock and forget the tries that led to it.
-- KEYS: the list of locks, the counter's tries, its lock.
-- ARGV: time, the counter's name.
-- Returns 1 if it was locked, else 0.
-- include: now

local till = redis.call('HGET', KEYS[3], 'until')
redis.call('ZREM', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[2], KEYS[3])
-- A value that can't be read locks, too.
return (till and (tonumber(till) or math.huge) > now) and 1 or 0
