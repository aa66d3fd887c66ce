-- Create a card.
-- KEYS: cards, ids, the account's ids.
-- ARGV: claim, id, document, the same PIN's claim by the old key ('': none).
-- Returns 1; 0 if the claim is taken; -1 if the id is.

if redis.call('HEXISTS', KEYS[2], ARGV[2]) == 1 then return -1 end
if ARGV[4] ~= '' and redis.call('HEXISTS', KEYS[1], ARGV[4]) == 1 then return 0 end
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[3]) == 0 then return 0 end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[1])
redis.call('ZADD', KEYS[3], 0, ARGV[2])
return 1
