-- Pay for talk: book the seconds already talked, then take more of what is left.
-- KEYS: sums.
-- ARGV: time, seconds per hour, seconds per day ('': no limit), seconds already talked, seconds to take.
-- Returns {seconds taken, seconds left, day, minute, what will be used up first}.
-- include: now
-- include: sums

take(tonumber(ARGV[4]), ARGV[2])
local rest, why = left(ARGV[2], ARGV[3])
local seconds = math.max(0, math.min(tonumber(ARGV[5]), rest))
take(seconds, ARGV[2])
keep()
return answer(seconds, rest - seconds, why)
