-- Read and take the seconds that an hour and a day allow. Needs `now`. The last of KEYS: the sums.
-- include: readable

local day = string.format('%d', math.floor(now / 86400))
local minute = string.format('%d', math.floor(now / 60))
local sums = KEYS[#KEYS]
local function left(an_hour, a_day)
  local rest, why = math.huge, nil
  if a_day ~= '' then
    rest = tonumber(a_day) - readable(redis.call('HGET', sums, 'd' .. day), sums)
    why = 'minutes_per_day'
  end
  if an_hour ~= '' then
    -- 60 minutes, the current one, and one more for what is paid ahead of its talk (AHEAD in usage.py).
    local fields = {}
    for i = 0, 61 do fields[i + 1] = 'm' .. string.format('%d', minute - i) end
    local talked = 0
    for _, seconds in ipairs(redis.call('HMGET', sums, unpack(fields))) do
      talked = talked + readable(seconds, sums)
    end
    if tonumber(an_hour) - talked < rest then
      rest = tonumber(an_hour) - talked
      why = 'minutes_per_hour'
    end
  end
  return rest, why
end
local function take(seconds, an_hour)
  if seconds <= 0 then return end
  redis.call('HINCRBYFLOAT', sums, 'd' .. day, string.format('%.3f', seconds))
  if an_hour ~= '' then redis.call('HINCRBYFLOAT', sums, 'm' .. minute, string.format('%.3f', seconds)) end
end
local function keep()
  if redis.call('EXISTS', sums) == 0 then return end
  redis.call('EXPIRE', sums, 90000)
  if redis.call('HLEN', sums) < 100 then return end
  for _, field in ipairs(redis.call('HKEYS', sums)) do
    -- Another version may have fields of other names.
    local unit, at = string.match(field, '^([dmn])(%d+)$')
    local from = unit == 'm' and minute - 61 or tonumber(day)
    if unit and tonumber(at) < from then redis.call('HDEL', sums, field) end
  end
end
local function answer(seconds, rest, why)
  return {string.format('%.3f', seconds), string.format('%.3f', math.min(rest, 1e9)), day, minute, why or ''}
end
