-- Read a card, and note its last number if it is as the session that dials knows it.
-- KEYS: cards, ids, last numbers.
-- ARGV: id, number, and what the session knows: claim, document ('': inactive, so nothing is noted).
-- Returns {claim, document}, or {}.

local claim = redis.call('HGET', KEYS[2], ARGV[1])
if not claim then return {} end
local document = redis.call('HGET', KEYS[1], claim)
if claim == ARGV[3] and document == ARGV[4] then redis.call('HSET', KEYS[3], ARGV[1], ARGV[2]) end
return {claim, document}
