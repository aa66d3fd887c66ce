-- Read cards by id.
-- KEYS: cards, ids.
-- ARGV: ids.
-- Returns claim and document of each that exists.

local found = {}
for _, id in ipairs(ARGV) do
  local claim = redis.call('HGET', KEYS[2], id)
  if claim then
    found[#found + 1] = claim
    found[#found + 1] = redis.call('HGET', KEYS[1], claim)
  end
end
return found
