-- Counts the usage events of one user and one UTC day in a batch, which is the range [from, to) of a partition.
--
-- By hand:
--   redis-cli --eval count.lua quota:{u}:2026-11-23 , a1.0 65536 clear 100 200 3 30 1795651200 1000 '80:800 100:1000' 0,17,42,
--
-- KEYS  1 hash with the counters
-- ARGV  1 field of the partition     2 epoch     3 mode     4 from     5 to
--       6 events     7 their data points     8 when the hash expires, seconds since the Unix epoch
--       9 limit of the day, or '' where no threshold events are wanted
--      10 thresholds, '<percent>:<calls>' separated by spaces
--      11 offsets of the events, less from, each followed by a comma; only the comma for one recorded after its day was over
--
-- The field holds '<epoch> <watermark> <calls> <data points>': what this partition has counted, and up to which offset. A
-- share of a lower epoch is given up in mode 'clear' and kept in the others. In mode 'adopt' no share is created.
--
-- Answer: a word and two numbers, and then, each behind a space, the threshold events that are due from this partition:
--   'counted <calls of the day> <points>'  all of them
--   'known <calls of the day> <points>'    none: the watermark is at or behind the end of the range
--   'behind <watermark> 0'                 none: what lies before the watermark is counted; call again from there
--   'left <calls of the day> <points>'     none: there is no share to adopt
--   'later <epoch> 0'                      none: the share belongs to a later epoch
--
-- The field marks lists the thresholds that were reached, ' <percent>:<limit>'; one that is due goes on with
-- ':<calls>:<field>:<offset>' of the event that reached it, until clear.lua cuts that off.
--
-- One command writes everything: a server that runs out of memory within a script may have applied the commands before.
-- Only what Lua 5.1 and 5.4, Redis and Dragonfly have in common; numbers are exact up to 2^53 and stop there.
local hash, field = KEYS[1], ARGV[1]
local epoch, from, to = tonumber(ARGV[2]), tonumber(ARGV[4]), tonumber(ARGV[5])
local most = 9007199254740992

local kept = redis.call('HMGET', hash, field, 'api_calls', 'data_points', 'marks')
local all_calls, all_points, marks = tonumber(kept[2] or 0), tonumber(kept[3] or 0), kept[4] or ''
local of, watermark, calls, points
if kept[1] then
  of, watermark, calls, points = string.match(kept[1], '^(%d+) (%d+) (%d+) (%d+)$')
  of, watermark, calls, points = tonumber(of), tonumber(watermark), tonumber(calls), tonumber(points)
end

if not of then
  if ARGV[3] == 'adopt' then
    return string.format('left %.0f %.0f', all_calls, all_points)
  end
  calls, points = 0, 0
elseif of > epoch then
  return string.format('later %.0f 0', of)
elseif of < epoch and ARGV[3] == 'clear' then
  all_calls, all_points = math.max(0, all_calls - calls), math.max(0, all_points - points)
  calls, points, marks, watermark = 0, 0, '', nil
end

local function due()
  local list = ''
  if marks ~= '' then
    for entry in string.gmatch(marks, '%S+') do
      if string.find(entry, ':' .. field .. ':', 1, true) then
        list = list .. ' ' .. entry
      end
    end
  end
  return list
end

if watermark and watermark >= to then
  redis.call('EXPIREAT', hash, ARGV[8])
  return string.format('known %.0f %.0f', all_calls, all_points) .. due()
elseif watermark and watermark > from then
  redis.call('EXPIREAT', hash, ARGV[8])
  return string.format('behind %.0f 0', watermark)
end

if ARGV[9] ~= '' then
  for percent, least in string.gmatch(ARGV[10], '(%d+):(%d+)') do
    least = tonumber(least)
    if all_calls + tonumber(ARGV[6]) >= least and not string.find(marks .. ' ', ' ' .. percent .. ':' .. ARGV[9] .. '[: ]') then
      -- The first event at or beyond the threshold that was recorded within the day.
      local i = 0
      for offset in string.gmatch(ARGV[11], '(%d*),') do
        i = i + 1
        if offset ~= '' and all_calls + i >= least then
          marks = marks .. string.format(' %s:%s:%.0f:%s:%.0f', percent, ARGV[9], all_calls + i, field, from + tonumber(offset))
          break
        end
      end
    end
  end
end

local n, p = tonumber(ARGV[6]), tonumber(ARGV[7])
all_calls, all_points = math.min(most, all_calls + n), math.min(most, all_points + p)
local share = string.format('%.0f %.0f %.0f %.0f', epoch, to, math.min(most, calls + n), math.min(most, points + p))
local written = { 'api_calls', string.format('%.0f', all_calls), 'data_points', string.format('%.0f', all_points), field, share }
if marks ~= (kept[4] or '') then
  written[7], written[8] = 'marks', marks
end
redis.call('HSET', hash, (table.unpack or unpack)(written))
if not of or of < epoch then
  -- Later calls need not do it. One that fails before here is made again, by this process or the next owner, and ends up here
  -- in a later epoch, or above: known, or behind if the range is cut otherwise.
  redis.call('EXPIREAT', hash, ARGV[8])
end
return string.format('counted %.0f %.0f', all_calls, all_points) .. due()
