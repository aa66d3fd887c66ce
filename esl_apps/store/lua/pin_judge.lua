-- Judge a typed PIN: refuse it if a lock holds; count it if it is wrong, and lock what reaches its threshold.
-- KEYS: the list of locks; the callers who opened with this PIN; then each counter's tries and its lock, the caller's
-- own first.
-- ARGV: time, the try ('': count nothing), window in seconds, first lock in seconds, seconds for which a caller is
-- remembered ('': not), '1' if the PIN is right, the caller, how many callers are remembered for one PIN; then each
-- counter's name, threshold and longest lock in seconds. A counter named '' doesn't count.
-- Returns {name, seconds remaining} of a lock that holds, or name, seconds and threshold of each lock that begins now.
-- include: now
-- include: readable

local window, first = tonumber(ARGV[3]), tonumber(ARGV[4])
local count = (#KEYS - 2) / 2
local opened = redis.call('ZSCORE', KEYS[2], ARGV[7])
local known = ARGV[5] ~= '' and readable(opened, KEYS[2]) > now - (tonumber(ARGV[5]) or 0)
for i = 1, count do
  local lock = redis.call('HMGET', KEYS[2 * i + 2], 'until', 'level')
  local till = readable(lock[1], KEYS[2 * i + 2])
  if till > now and (i == 1 or not known) then
    return {ARGV[3 * i + 6], string.format('%d', math.ceil(till - now))}
  end
  -- What can't be read shows before a PIN is judged, or only wrong ones would be refused for it.
  readable(lock[2], KEYS[2 * i + 2])
  redis.call('ZCARD', KEYS[2 * i + 1])
end
local begun = {}
if ARGV[5] ~= '' and ARGV[6] == '1' then
  redis.call('ZADD', KEYS[2], string.format('%.3f', now), ARGV[7])
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1 - tonumber(ARGV[8]))
  redis.call('EXPIRE', KEYS[2], ARGV[5])
end
if ARGV[2] == '' then return begun end
for i = 1, count do
  local tries, lock = KEYS[2 * i + 1], KEYS[2 * i + 2]
  local name, threshold, longest = ARGV[3 * i + 6], tonumber(ARGV[3 * i + 7]), tonumber(ARGV[3 * i + 8])
  if name ~= '' then
    redis.call('ZREMRANGEBYSCORE', tries, '-inf', string.format('%.3f', now - window))
    redis.call('ZADD', tries, string.format('%.3f', now), ARGV[2])
    redis.call('PEXPIRE', tries, math.ceil(window * 1000))
    if redis.call('ZCARD', tries) >= threshold then
      -- The level drops by one for each window since the last lock ended.
      local was = redis.call('HMGET', lock, 'until', 'level')
      local level = 0
      if was[1] then level = math.max(0, tonumber(was[2]) - math.floor((now - tonumber(was[1])) / window)) end
      local seconds = math.min(first * 2 ^ level, longest)
      if seconds < longest then level = level + 1 end
      redis.call('DEL', tries)
      redis.call('HSET', lock, 'until', string.format('%.3f', now + seconds), 'level', level)
      redis.call('PEXPIRE', lock, math.ceil((seconds + (level + 1) * window) * 1000))
      redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.3f', now))
      redis.call('ZADD', KEYS[1], string.format('%.3f', now + seconds), name)
      local ms = math.ceil(seconds * 1000)
      if redis.call('PTTL', KEYS[1]) < ms then redis.call('PEXPIRE', KEYS[1], ms) end
      begun[#begun + 1] = name
      begun[#begun + 1] = string.format('%d', math.ceil(seconds))
      begun[#begun + 1] = string.format('%d', threshold)
    end
  end
end
return begun
