-- Push one list's records, in order, each at most once. A record is pushed and marked, or neither: the mark is written
-- first, so that a user who may not write it pushes nothing, and taken back if the push is refused.
-- KEYS: the list or stream, its counter, then a mark for each record's id.
-- ARGV: seconds to keep a mark; then for each record the text before its seq, the text after it, the side (left, right
-- or stream), and about how many entries a stream keeps (0: all).
-- Returns the seq of every record, including those that were pushed before.

local function push(side, longest, seq, text)
  if side == 'left' then return redis.pcall('LPUSH', KEYS[1], text) end
  if side == 'right' then return redis.pcall('RPUSH', KEYS[1], text) end
  if longest == '0' then return redis.pcall('XADD', KEYS[1], '*', 'seq', seq, 'json', text) end
  return redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', longest, '*', 'seq', seq, 'json', text)
end

local kind = redis.call('TYPE', KEYS[1]).ok
local wanted = ARGV[4] == 'stream' and 'stream' or 'list'
if kind ~= wanted and kind ~= 'none' then return redis.error_reply('WRONGTYPE ' .. KEYS[1] .. ' is a ' .. kind) end
local seqs = {}
for i = 3, #KEYS do
  local seq = redis.call('GET', KEYS[i])
  if not seq or seq == '0' then
    local head, tail, side, longest = unpack(ARGV, 4 * i - 10, 4 * i - 7)
    redis.call('SET', KEYS[i], '0', 'EX', ARGV[1])
    seq = redis.call('INCR', KEYS[2])
    if tail ~= '' then head = head .. seq .. tail end
    local pushed = push(side, longest, seq, head)
    if type(pushed) == 'table' and pushed.err then
      redis.call('SET', KEYS[2], seq - 1)
      return pushed
    end
    redis.call('SET', KEYS[i], seq, 'EX', ARGV[1])
  end
  seqs[i - 2] = tonumber(seq)
end
return seqs
