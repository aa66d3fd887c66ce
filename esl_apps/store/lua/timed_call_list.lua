-- List timed calls, the next to be due first.
-- KEYS: due, pending.
-- ARGV: the first and the last to list, from 0; or '' and numbers.
-- Returns {document, when due, owner, '1' if a node is placing it} of each.

local found = {}
local function add(number, due)
  local fields = redis.call('HMGET', KEYS[2], number, number .. ':owner', number .. ':claim', number .. ':dropped')
  if fields[1] and due and not fields[4] then
    found[#found + 1] = {fields[1], due, fields[2] or '', fields[3] and '1' or ''}
  end
end
if ARGV[1] ~= '' then
  local listed = redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[2], 'WITHSCORES')
  for i = 1, #listed, 2 do add(listed[i], listed[i + 1]) end
else
  for i = 2, #ARGV do add(ARGV[i], redis.call('ZSCORE', KEYS[1], ARGV[i])) end
end
return found
