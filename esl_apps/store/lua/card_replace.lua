-- Change a card, and move it if its claim changes. A new holder doesn't get the last number of the one before.
-- KEYS: cards, ids, last numbers.
-- ARGV: id, old claim, old document, claim, document, the same PIN's claim by the old key ('': none), '1' if it has a
-- new holder.
-- Returns 1; 0 if the claim is taken; -1 if the card has changed since it was read.

if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] or redis.call('HGET', KEYS[1], ARGV[2]) ~= ARGV[3] then
  return -1
end
if ARGV[6] ~= '' and ARGV[6] ~= ARGV[2] and redis.call('HEXISTS', KEYS[1], ARGV[6]) == 1 then return 0 end
if ARGV[4] == ARGV[2] then
  redis.call('HSET', KEYS[1], ARGV[4], ARGV[5])
else
  if redis.call('HSETNX', KEYS[1], ARGV[4], ARGV[5]) == 0 then return 0 end
  redis.call('HDEL', KEYS[1], ARGV[2])
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[4])
end
if ARGV[7] == '1' then redis.call('HDEL', KEYS[3], ARGV[1]) end
return 1
