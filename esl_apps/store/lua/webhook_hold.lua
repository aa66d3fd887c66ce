-- Take or renew the right to deliver a webhook, and see how much there is to deliver.
-- KEYS: the lease, the state, the stream's counter.
-- ARGV: this process, milliseconds until the lease ends, the last run of this node, which is dead.
-- Returns nothing if another process has it; otherwise how many entries wait, and the failed attempts in a row.

local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] and holder ~= ARGV[3] then return {} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local done = redis.call('HMGET', KEYS[2], 'seq', 'failures')
return {(tonumber(redis.call('GET', KEYS[3])) or 0) - (tonumber(done[1]) or 0), tonumber(done[2]) or 0}
