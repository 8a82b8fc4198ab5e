-- Holds a part of a user's day for work that is about to begin, if what is counted, what is held and what is asked for stay within the limit.
--
-- By hand:
--   redis-cli --eval reserve.lua quota:{u}:2026-11-23 quota_holds:{u}:2026-11-23 , r-1 1 0 30000 1000 '' 1795392000 10000 ''
--
-- KEYS  1 hash with the counters     2 hash with the holds
-- ARGV  1 id of the reservation      2 calls     3 data points     4 how long it is held, milliseconds
--       5 limit of the day's calls, '' for none     6 of its data points, '' for none
--       7 when the day begins, seconds since the Unix epoch     8 how many holds a user and day may have
--       9 the time, milliseconds since the Unix epoch; '' for the server's own
--
-- A hold is a field with the reservation's id: '<ends, ms> <calls> <data points>'. The field '.', which is no id, sums up all that are there:
-- '<calls> <data points> <not later than the first end, ms>'. So a call costs the same with one hold as with thousands, unless some have ended.
--
-- Answer: a word and seven numbers: the time, when the hold ends, calls and data points that are counted, calls and data points that are held, and when
-- the first hold ends; 0 where there is none:
--   'granted'   it is held
--   'known'     it was held already, with the same amounts
--   'other'     it is held with other amounts
--   'exceeded'  not held: it would go beyond a limit
--   'crowded'   not held: the user has too many holds
--   'day'       not held: by the server's clock it is another day
--
-- No key is ever without an expiry, and none expires before a hold in it: where a hash is there, its expiry is moved first; where it is new, it is taken
-- away again if the expiry can't be set. A server that runs out of memory within a script has applied the commands before; each by itself is whole.
-- Only what Lua 5.1 and 5.4, Redis and Dragonfly have in common.
local call, format, match, min = redis.call, string.format, string.match, math.min
local unpack = table.unpack or unpack
local holds, id = KEYS[2], ARGV[1]
local asked_calls, asked_points, ttl = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local counters = call('HMGET', KEYS[1], 'api_calls', 'data_points')
local counted_calls, counted_points = tonumber(counters[1] or 0), tonumber(counters[2] or 0)
local kept = call('HMGET', holds, '.', id)
local now = tonumber(ARGV[9])
if not now then
  local time = call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local calls, points, first, number = 0, 0, 0, 0
if kept[1] then
  calls, points, first = match(kept[1], '^(%d+) (%d+) (%d+)$')
  calls, points, first = tonumber(calls), tonumber(points), tonumber(first)
  number = call('HLEN', holds) - 1
end
local own = kept[2] -- false: there is none

-- A hold lasts 300 s at most. One that ends much later is of a time before the clock was set back, and would last until that time comes again. Up to
-- twice as much is left alone: a clock that is set back a little holds a little longer, and grants nothing twice.
local latest = now + 600000

-- Looks through all holds, drops those that have ended and sums up the others.
local few, looked = 500, false
local function look()
  local all, ended = call('HGETALL', holds), {}
  calls, points, first, number, looked = 0, 0, 0, 0, true
  for i = 1, #all, 2 do
    if all[i] ~= '.' then
      local ends, c, p = match(all[i + 1], '^(%d+) (%d+) (%d+)$')
      ends = tonumber(ends)
      if (ends <= now or ends > latest) and #ended < 1000 then -- a few thousand arguments are too many for Lua; the next look drops the others
        ended[#ended + 1] = all[i]
        if all[i] == id then
          own = false
        end
      else
        calls, points, number = calls + tonumber(c), points + tonumber(p), number + 1
        first = first == 0 and ends or min(first, ends)
      end
    end
  end
  -- The holds before their sum: a sum that is too high holds too much until the first hold ends, one that is too low would grant too much.
  local sum = format('%d %d %d', calls, points, first)
  if number == 0 then
    call('DEL', holds)
  elseif #ended > 0 then
    call('HDEL', holds, unpack(ended))
    call('HSET', holds, '.', sum)
  elseif sum ~= kept[1] then
    call('HSET', holds, '.', sum)
  end
end
-- With many holds the ended ones are dropped less often, so that looking stays cheap: with 10,000 up to a second late. Until then they are held.
if number > 0 and (first <= now and (number <= few or now - first >= number / 10) or first > latest) then
  look()
end

local function answer(word, ends)
  return format('%s %d %d %d %d %d %d %d', word, now, ends, counted_calls, counted_points, calls, points, first)
end

local day = tonumber(ARGV[7]) * 1000
if now < day or now >= day + 86400000 then
  return answer('day', 0)
end
if own then
  local ends, c, p = match(own, '^(%d+) (%d+) (%d+)$')
  ends, c, p = tonumber(ends), tonumber(c), tonumber(p)
  if ends > now and ends <= latest then
    return answer(c == asked_calls and p == asked_points and 'known' or 'other', ends)
  end
  calls, points, number = calls - c, points - p, number - 1 -- it has ended and was not dropped yet: it is written over
end
local function beyond(limit, counted, held, asked)
  return limit ~= '' and counted + held + asked > tonumber(limit)
end
if beyond(ARGV[5], counted_calls, calls, asked_calls) or beyond(ARGV[6], counted_points, points, asked_points) then
  -- The answer says when the first hold ends, and that one may have been released. With more than a few holds it is said too early rather than
  -- looked for: users at their limit ask most, and are refused most.
  if number > 0 and number <= 32 and not looked then
    look()
  end
  return answer('exceeded', 0)
elseif number >= tonumber(ARGV[8]) then
  return answer('crowded', 0)
end

local ends = now + ttl
calls, points = calls + asked_calls, points + asked_points
first = first == 0 and ends or min(first, ends)
local function hold()
  call('HSET', holds, '.', format('%d %d %d', calls, points, first), id, format('%d %d %d', ends, asked_calls, asked_points))
end
local left, expiry = call('PTTL', holds), ttl + 1000 -- a second behind the hold's end: clocks are read more than once
if left == -2 then
  hold()
  local set = redis.pcall('PEXPIRE', holds, format('%d', expiry))
  if type(set) == 'table' and set.err then
    call('DEL', holds)
    return redis.error_reply(set.err)
  end
else
  if left < expiry then
    call('PEXPIRE', holds, format('%d', expiry))
  end
  hold()
end
return answer('granted', ends)
