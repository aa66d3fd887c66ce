-- Push one list's records, in order, each at most once. A record is pushed and marked, or neither: the mark is written
-- first, so that a user who may not write it pushes nothing, and taken back if the push is refused.
-- KEYS: the list, its counter, then a mark for each record's id.
-- ARGV: seconds to keep a mark; then for each record the text before its seq, the text after it, and the side.
-- Returns the seq of every record, including those that were pushed before.

local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'list' and kind ~= 'none' then return redis.error_reply('WRONGTYPE ' .. KEYS[1] .. ' is a ' .. kind) end
local seqs = {}
for i = 3, #KEYS do
  local seq = redis.call('GET', KEYS[i])
  if not seq or seq == '0' then
    local head, tail, side = ARGV[3 * i - 7], ARGV[3 * i - 6], ARGV[3 * i - 5]
    redis.call('SET', KEYS[i], '0', 'EX', ARGV[1])
    seq = redis.call('INCR', KEYS[2])
    if tail ~= '' then head = head .. seq .. tail end
    local pushed = redis.pcall(side == 'right' and 'RPUSH' or 'LPUSH', KEYS[1], head)
    if type(pushed) == 'table' and pushed.err then
      redis.call('SET', KEYS[2], seq - 1)
      return pushed
    end
    redis.call('SET', KEYS[i], seq, 'EX', ARGV[1])
  end
  seqs[i - 2] = tonumber(seq)
end
return seqs
