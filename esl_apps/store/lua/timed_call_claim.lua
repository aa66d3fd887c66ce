-- Take the earliest call that is due. The fields' names are built here because the number is found here.
-- KEYS: due, pending.
-- ARGV: now, when the lease ends, claim.
-- Returns {document, attempt, owner, '1' if it was dropped, number}, or nil.

local number = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, 1)[1]
if not number then return false end
redis.call('ZADD', KEYS[1], ARGV[2], number)
redis.call('HSET', KEYS[2], number .. ':claim', ARGV[3])
local attempt = redis.call('HINCRBY', KEYS[2], number .. ':attempt', 1)
local fields = redis.call('HMGET', KEYS[2], number, number .. ':owner', number .. ':dropped')
return {fields[1], attempt, fields[2] or '', fields[3] or '', number}
