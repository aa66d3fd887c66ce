-- Count a call until its lease ends. The key expires with the last lease. Needs `now`.
-- KEYS[1]: the holder's calls. ARGV[2]: the call. ARGV[3]: the lease in seconds.

redis.call('ZADD', KEYS[1], string.format('%.3f', now + ARGV[3]), ARGV[2])
local ms = math.ceil(ARGV[3] * 1000)
if redis.call('PTTL', KEYS[1]) < ms then redis.call('PEXPIRE', KEYS[1], ms) end
return 1
