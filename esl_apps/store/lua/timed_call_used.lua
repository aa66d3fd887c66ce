-- Count a number's latest call as used.
-- KEYS: the number's past.
-- ARGV: day.

if redis.call('HGET', KEYS[1], 'day') == ARGV[1] then redis.call('HINCRBY', KEYS[1], 'used', 1) end
