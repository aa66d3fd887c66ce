-- Add events of live calls.
-- KEYS: the events; then for each call the mark of its record, and how far its events are written.
-- ARGV: time, seconds to keep events, seconds to remember a live call; then for each call its events.
-- include: add_events

local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'stream' and kind ~= 'none' then return redis.error_reply('WRONGTYPE ' .. KEYS[1] .. ' is a ' .. kind) end
for i = 4, #ARGV do
  local mark, reached = KEYS[2 * i - 6], KEYS[2 * i - 5]
  -- A call whose record is there has ended: this process was stopped, and another one saw the end.
  if redis.call('EXISTS', mark) == 0 then
    redis.call('SET', reached, add_events(KEYS[1], reached, ARGV[i], '', tonumber(ARGV[2])), 'EX', ARGV[3])
  end
end
return 1
