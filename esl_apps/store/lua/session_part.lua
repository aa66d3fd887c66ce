-- Add a call's part to those of its session. The first one of a call stays, as the first of its records does.
-- KEYS: the session's parts.
-- ARGV: the call's reference, its part, seconds to keep the parts.
-- Returns all parts.

redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return redis.call('HVALS', KEYS[1])
