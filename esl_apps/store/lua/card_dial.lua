-- Note a card's last number and read the card. A card that was deleted gets no last number.
-- KEYS: cards, ids, last numbers.
-- ARGV: id, number.
-- Returns {claim, document}, or {}.

local claim = redis.call('HGET', KEYS[2], ARGV[1])
if not claim then return {} end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
return {claim, redis.call('HGET', KEYS[1], claim)}
