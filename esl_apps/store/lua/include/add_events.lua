-- Define `add_events`: add a call's events to a stream, each once and in order. Returns the rank of the last one.
-- text: a line with the call as JSON, then a line for each event: its rank, its kind, and the first fields of its data.
-- record: the call's record as JSON, for the event of that kind.
-- include: now

local function add_events(stream, reached, text, record, keep)
  local last = tonumber(redis.call('GET', reached) or -1)
  local oldest = math.floor((now - keep) * 1000)
  local call, events = string.match(text, '^{([^\n]*)(.*)$')
  for rank, kind, head in string.gmatch(events, '\n(%d+) (%a+) ([^\n]+)') do
    if tonumber(rank) > last then
      last = tonumber(rank)
      local rest = kind == 'record' and string.sub(record, 2) or call
      redis.call('XADD', stream, 'MINID', '~', oldest, '*', 'event', kind, 'json', '{' .. head .. ',' .. rest)
    end
  end
  redis.call('EXPIRE', stream, keep)
  return last
end
