-- Read one page of an account's cards.
-- KEYS: cards, ids, the account's ids.
-- ARGV: the id after which the page begins, in ZRANGEBYLEX's form; how many.
-- Returns claim and document of each.

local found = {}
for _, id in ipairs(redis.call('ZRANGEBYLEX', KEYS[3], ARGV[1], '+', 'LIMIT', 0, ARGV[2])) do
  local claim = redis.call('HGET', KEYS[2], id)
  found[#found + 1] = claim
  found[#found + 1] = redis.call('HGET', KEYS[1], claim)
end
return found
