-- List what is locked now, the next to open first.
-- KEYS: the list of locks.
-- ARGV: time.
-- Returns each lock's name and the seconds remaining.
-- include: now

local found = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.3f', now), '+inf', 'WITHSCORES')
for i = 2, #found, 2 do found[i] = string.format('%d', math.ceil(tonumber(found[i]) - now)) end
return found
