-- Counts the usage events of one user and one UTC day in a batch, which is the range [from, to) of a partition.
--
-- By hand:
--   redis-cli --eval count.lua quota:{u}:2026-11-23 , a1.0 65536 clear 100 200 3 30 1795651200 1000 800 ' 1000/282s/' '80:800 100:1000;0,17,42,'
--
-- KEYS  1 hash with the counters     2 hash with the holds, only where events name reservations
-- ARGV  1 field of the partition     2 epoch     3 mode     4 from     5 to
--       6 events     7 their data points and, where usage is taken back, behind a space '<void>:<data points>,' for each void, in the order
--         of the offsets; voids are none of the events     8 when the hash expires, seconds since the Unix epoch
--       9 limit of the day, or '' where no threshold events are wanted; then 10 to 12 are '' as well
--      10 calls that reach the lowest threshold
--      11 ' <limit>/<name of the list of thresholds>/'
--      12 the list, '<percent>:<calls>' ascending and separated by spaces; a semicolon; and the offsets of the events, less from, each
--         followed by a comma; only the comma for one recorded after its day was over, and 'v,' for a void. '' leaves all of it out: most
--         calls reach no threshold
--      13 and on: with KEYS[2], the reservations that the events name, each once. Their holds end where the events are counted
--
-- The field holds '<epoch> <watermark> <calls> <data points>': what this partition has counted, and up to which offset. A
-- share of a lower epoch is given up in mode 'clear' and kept in the others. In mode 'adopt', and without events, no share is created.
-- The field 'v:' and the field of the partition, with a colon for its point, lists the voids that were taken off the share, each followed by
-- a space: one that is published again, hours later, is taken off once. It is given up when, and only when, the share is.
--
-- Answer: a word and two numbers, and then, each behind a space, the threshold events that are due from this partition:
--   'counted <calls of the day> <points>'  all of them
--   'known <calls of the day> <points>'    none: the watermark is at or behind the end of the range
--   'behind <watermark> 0'                 none: what lies before the watermark is counted; call again from there
--   'left <calls of the day> <points>'     none: there is no share to adopt
--   'offsets <calls of the day> <points>'  none: they may reach a threshold; call again with the list and the offsets
--   'later <epoch> 0'                      none: the share belongs to a later epoch
--
-- The field marks lists the thresholds that were reached, ' <percent>:<limit>'; one that is due goes on with
-- ':<calls>:<field>:<offset>' of the event that reached it, until clear.lua cuts that off. In front of them it holds, for each limit and
-- list, ' <limit>/<name of the list>/<calls>': below so many calls there is nothing to reach that is not in marks; '-': there never is.
-- So a call costs the same however many thresholds a list has, and one with another limit or list looks at all of its own.
--
-- One command writes everything that counts: a server that runs out of memory within a script may have applied the commands before.
-- Only what Lua 5.1 and 5.4, Redis and Dragonfly have in common; numbers are exact up to 2^53 and stop there.
local call, format, find, gmatch, gsub, match, sub = redis.call, string.format, string.find, string.gmatch, string.gsub, string.match, string.sub
local concat, min, max = table.concat, math.min, math.max
local hash, field = KEYS[1], ARGV[1]
local epoch, from, to, events = tonumber(ARGV[2]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local most = 9007199254740992

local kept = call('HMGET', hash, field, 'api_calls', 'data_points', 'marks')
local all_calls, all_points, marks = tonumber(kept[2] or 0), tonumber(kept[3] or 0), kept[4] or ''
local of, watermark, calls, points, fresh
if kept[1] then
  of, watermark, calls, points = match(kept[1], '^(%d+) (%d+) (%d+) (%d+)$')
  of, watermark, calls, points = tonumber(of), tonumber(watermark), tonumber(calls), tonumber(points)
end

local function answer(word)
  local text = format('%s %d %d', word, all_calls, all_points)
  local own = ':' .. field .. ':'
  if marks ~= '' and find(marks, own, 1, true) then
    for entry in gmatch(marks, '%S+') do
      if find(entry, own, 1, true) then
        text = text .. ' ' .. entry
      end
    end
  end
  return text
end

if not of then
  if ARGV[3] == 'adopt' or events == 0 then
    return format('left %d %d', all_calls, all_points)
  end
  calls, points, fresh = 0, 0, kept[2]
elseif of > epoch then
  return format('later %d 0', of)
elseif of < epoch and ARGV[3] == 'clear' then
  all_calls, all_points = max(0, all_calls - calls), max(0, all_points - points)
  calls, points, marks, watermark, fresh = 0, 0, '', nil, true
end

if watermark and watermark >= to then
  call('EXPIREAT', hash, ARGV[8])
  return answer('known')
elseif watermark and watermark > from then
  call('EXPIREAT', hash, ARGV[8])
  return format('behind %d 0', watermark)
end

-- What is taken off, and which of the voids were taken off before. Without voids there is a list to look for only where a share begins.
local n, taking, voids, listed, repeated, off_calls, off_points = tonumber(ARGV[7])
if not n then
  n, taking = match(ARGV[7], '^(%d+) (.*)$')
  n = tonumber(n)
end
if taking or fresh then
  listed = 'v:' .. gsub(field, '%.', ':')
  voids = call('HGET', hash, listed)
  if fresh then
    voids = voids and ''
  end
end
if taking then
  local before, list = {}, {voids or ''}
  repeated, off_calls, off_points = {}, 0, 0
  for void in gmatch(list[1], '%S+') do
    before[void] = true
  end
  for void, worth in gmatch(taking, '(%w+):(%d+),') do
    repeated[#repeated + 1] = before[void] or false
    if not before[void] then
      before[void] = true
      list[#list + 1] = void .. ' '
      off_calls, off_points = off_calls + 1, off_points + tonumber(worth)
    end
  end
  voids = concat(list)
end

if ARGV[9] ~= '' and all_calls + events >= tonumber(ARGV[10]) then
  local note, last = find(marks, ARGV[11], 1, true)
  local following = last and match(marks, '^%d+', last + 1)
  if not note or following and all_calls + events >= tonumber(following) then
    if ARGV[12] == '' then
      return format('offsets %d %d', all_calls, all_points)
    end
    local list, offsets = match(ARGV[12], '^([^;]*);(.*)$')
    local known, open = marks .. ' ', {}
    for percent, least in gmatch(list, '(%d+):(%d+)') do
      if not find(known, ' ' .. percent .. ':' .. ARGV[9] .. '[: ]') then
        open[#open + 1] = {percent, least}
      end
    end
    -- Each is reached by the first event at or beyond it that was recorded within the day.
    local i, place, due, void = 0, 1, '', 0
    for offset in gmatch(offsets, '([^,]*),') do
      if offset == 'v' then
        void = void + 1
        if not repeated[void] then
          i = i - 1
        end
        offset = ''
      else
        i = i + 1
      end
      while offset ~= '' and open[place] and all_calls + i >= tonumber(open[place][2]) do
        due = due .. format(' %s:%s:%d:%s:%d', open[place][1], ARGV[9], all_calls + i, field, from + tonumber(offset))
        place = place + 1
      end
      if not open[place] then
        break
      end
    end
    local rest = marks
    if note then
      rest = sub(marks, 1, note - 1) .. match(marks, '^[%d-]*(.*)$', last + 1)
    end
    marks = ARGV[11] .. (open[place] and open[place][2] or '-') .. rest .. due
  end
end

if off_calls then
  -- No more than the share has: what it does not have was not counted here.
  off_calls, off_points = min(off_calls, calls + events), min(off_points, points + n)
  events, n = events - off_calls, n - off_points
end
all_calls, all_points = max(0, min(most, all_calls + events)), max(0, min(most, all_points + n))
local counted, used = format('%d', all_calls), format('%d', all_points)
local share = format('%s %s %d %d', ARGV[2], ARGV[5], min(most, calls + events), min(most, points + n))
if voids then
  call('HSET', hash, 'api_calls', counted, 'data_points', used, field, share, 'marks', marks, listed, voids)
elseif marks == (kept[4] or '') then
  call('HSET', hash, 'api_calls', counted, 'data_points', used, field, share)
else
  call('HSET', hash, 'api_calls', counted, 'data_points', used, field, share, 'marks', marks)
end
if not of or of < epoch then
  -- Later calls need not do it. One that fails before here is made again, by this process or the next owner, and ends up here
  -- in a later epoch, or above: known, or behind if the range is cut otherwise.
  call('EXPIREAT', hash, ARGV[8])
end

-- What is counted need not be held any more. See reserve.lua for the fields, and release.lua, which does the same. The holds go before their
-- sum, and both after the counter: half done, too much is held, and not too little.
if KEYS[2] then
  local sum = call('HGET', KEYS[2], '.')
  for begin = 13, sum and #ARGV or 0, 1000 do -- so many arguments Lua takes for sure
    local last = min(#ARGV, begin + 999)
    local held_calls, held_points, first = match(sum, '^(%d+) (%d+) (%d+)$')
    held_calls, held_points = tonumber(held_calls), tonumber(held_points)
    local held, there = call('HMGET', KEYS[2], (table.unpack or unpack)(ARGV, begin, last)), false
    for i = 1, last - begin + 1 do
      local _, c, p = match(held[i] or '', '^(%d+) (%d+) (%d+)$')
      if c then
        held_calls, held_points, there = held_calls - tonumber(c), held_points - tonumber(p), true
      end
    end
    if there then
      call('HDEL', KEYS[2], (table.unpack or unpack)(ARGV, begin, last))
      if call('HLEN', KEYS[2]) == 1 then
        call('DEL', KEYS[2])
        break
      end
      sum = format('%d %d %s', held_calls, held_points, first)
      call('HSET', KEYS[2], '.', sum)
    end
  end
end
return answer('counted')
