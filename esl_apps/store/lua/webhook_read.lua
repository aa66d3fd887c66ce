-- Read a webhook's next entries, in order.
-- KEYS: the stream, the state.
-- ARGV: how many at most.
-- Returns the id of the last entry that is done with, the failed attempts in a row, since when they fail and when the
-- next one is due (Redis's clock), what says which URL is gone for ever, and the entries.

local state = redis.call('HMGET', KEYS[2], 'done', 'failures', 'since', 'next', 'off')
local done = state[1] or '0-0'
local entries = redis.call('XRANGE', KEYS[1], '(' .. done, '+', 'COUNT', ARGV[1])
return {done, state[2] or '0', state[3] or '0', state[4] or '0', state[5] or '', entries}
