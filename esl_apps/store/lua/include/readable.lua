-- Define `readable`, which reads a stored number (nil or false: 0) and raises an error for anything else: a value that
-- can't be read must not allow anything. Lua would take 'nan' for a number, and it is below every limit.

local function readable(text, key)
  local number = tonumber(text or 0)
  if not number or number ~= number or number < 0 or number == math.huge then
    error('UNREADABLE ' .. key .. ' has a value that is not a number')
  end
  return number
end
