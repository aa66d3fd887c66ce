-- Define `now`: Unix seconds by Redis's own clock, so that the nodes' clocks don't matter.
-- ARGV[1]: a time to use instead (tests), or ''.

local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] + time[2] / 1000000
end
