-- Keep the records of calls that have ended and add their last events, each call once. The mark says 0 until all of a
-- call is there: a user without a right to one of the commands loses nothing, and a repeat adds what is missing.
-- KEYS: the history, its counter, its events; then for each call its mark, and how far its events are written.
-- ARGV: time, seconds to keep events, seconds to keep a mark; then for each call its reference, its record, 'history' if
-- the record is kept, and its events.
-- Returns the seq of every call, including those that were added before.
-- include: add_events

local function check(key, wanted)
  local kind = redis.call('TYPE', key).ok
  if kind ~= wanted and kind ~= 'none' then return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. kind) end
end

local wrong = check(KEYS[1], 'zset') or check(KEYS[3], 'stream')
if wrong then return wrong end
local seqs = {}
for i = 1, (#ARGV - 3) / 4 do
  local ref, record, side, events = unpack(ARGV, 4 * i, 4 * i + 3)
  local mark, reached = KEYS[2 * i + 2], KEYS[2 * i + 3]
  local seq = redis.call('GET', mark)
  if not seq or seq == '0' then
    redis.call('SET', mark, '0', 'EX', ARGV[3])
    if side == 'history' then redis.call('ZADD', KEYS[1], 0, ref .. record) end
    -- How far they are is kept, so that a repeat adds none twice.
    redis.call('SET', reached, add_events(KEYS[3], reached, events, record, tonumber(ARGV[2])), 'EX', ARGV[3])
    seq = redis.call('INCR', KEYS[2])
    redis.call('SET', mark, seq, 'EX', ARGV[3])
    redis.call('DEL', reached)
  end
  seqs[i] = tonumber(seq)
end
return seqs
