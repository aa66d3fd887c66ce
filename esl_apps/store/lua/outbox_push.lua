-- Push one list's records, in order, each at most once. Everything that can fail comes before the first write: a
-- record is pushed and marked, or neither.
-- KEYS: the list, its counter, then a mark for each record's id.
-- ARGV: seconds to keep a mark; then for each record the text before its seq, the text after it, and the side.
-- Returns the seq of every record, including those that were pushed before.

local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'list' and kind ~= 'none' then return redis.error_reply('WRONGTYPE ' .. KEYS[1] .. ' is a ' .. kind) end
local seqs = {}
for i = 3, #KEYS do
  local seq = redis.call('GET', KEYS[i])
  if not seq then
    local head, tail, side = ARGV[3 * i - 7], ARGV[3 * i - 6], ARGV[3 * i - 5]
    seq = redis.call('INCR', KEYS[2])
    if tail ~= '' then head = head .. seq .. tail end
    redis.call(side == 'right' and 'RPUSH' or 'LPUSH', KEYS[1], head)
    redis.call('SET', KEYS[i], seq, 'EX', ARGV[1])
  end
  seqs[i - 2] = tonumber(seq)
end
return seqs
