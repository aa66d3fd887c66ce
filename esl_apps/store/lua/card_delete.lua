-- Delete a card.
-- KEYS: cards, ids, the account's ids, last numbers.
-- ARGV: id.
-- Returns {claim, document} of the deleted card, or {} if the account has none of this id.

if redis.call('ZREM', KEYS[3], ARGV[1]) == 0 then return {} end
local claim = redis.call('HGET', KEYS[2], ARGV[1])
local document = redis.call('HGET', KEYS[1], claim)
redis.call('HDEL', KEYS[1], claim)
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[4], ARGV[1])
return {claim, document}
