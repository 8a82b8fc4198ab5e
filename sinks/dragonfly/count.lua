-- Counts usage events of one user and one UTC day, each once.
--
-- By hand (the identities are 8 bytes each in the service; any text will do here):
--   redis-cli --eval count.lua quota:{u}:2026-11-23 quota_seen:{u}:1:5 quota_seen:{u}:1:4 , 1 1764115200 7800 1000 800 1000 0 12 12 100 first-event
--
-- KEYS  1 hash with the counters    2 identities of the events' bucket    3 identities of the bucket before it
-- ARGV  1 epoch                     2 when the hash expires, seconds      3 how long the identities live, seconds
--       4 limit of the day or ''    5 calls at which 80 % are reached     6 calls at which it is exceeded
--       7 partition                 8 data points in all                  9 data points of each, separated by commas
--      10 offsets of each, separated by commas                           11.. identities, no two alike
--
-- Answer: '<newly counted> <calls of the day> <due>', or 'stale <epoch>' where the hash belongs to a later epoch.
-- <due> lists the threshold events to publish, each ' <percent>:<limit>:<calls>:<partition>:<offset>' with the place of
-- the event that reached the threshold. They stay listed until clear.lua takes them off, so none is lost on the way.
--
-- Only what Lua 5.1 and 5.4, Redis and Dragonfly have in common: no integer division, no nil in answers, numbers written
-- with %.0f, and SMISMEMBER before SADD instead of believing the answer of SADD, which in Dragonfly may be too small.
local unpack = table.unpack or unpack
local hash, bucket, before = KEYS[1], KEYS[2], KEYS[3]
local epoch = ARGV[1]

local kept = redis.call('HMGET', hash, 'epoch', 'marks', 'due')
local marks, due = kept[2] or '', kept[3] or ''
local fresh = not kept[1]
if kept[1] and kept[1] ~= epoch then
  if tonumber(kept[1]) > tonumber(epoch) then
    return 'stale ' .. kept[1]
  end
  redis.call('DEL', hash)
  marks, due, fresh = '', '', true
end

local here = redis.call('SMISMEMBER', bucket, unpack(ARGV, 11))
local there = redis.call('SMISMEMBER', before, unpack(ARGV, 11))
local new, places = {}, {}
for i = 1, #here do
  if here[i] == 0 and there[i] == 0 then
    new[#new + 1] = ARGV[10 + i]
    places[#places + 1] = i
  end
end
if #new == 0 then
  local calls = redis.call('HGET', hash, 'api_calls')
  return '0 ' .. (calls or '0') .. due
end

local points = ARGV[8]
if #new < #here then
  local each, i = {}, 0
  for p in string.gmatch(ARGV[9], '%d+') do
    i = i + 1
    each[i] = tonumber(p)
  end
  local sum = 0
  for k = 1, #places do
    sum = sum + each[places[k]]
  end
  points = string.format('%.0f', sum)
end

redis.call('SADD', bucket, unpack(new))
redis.call('EXPIRE', bucket, ARGV[3])
if fresh then
  -- First of all: where memory ends in the midst of a script, what is left of it expires.
  redis.call('HSET', hash, 'epoch', epoch)
  redis.call('EXPIREAT', hash, ARGV[2])
end
local calls = redis.call('HINCRBY', hash, 'api_calls', #new)
redis.call('HINCRBY', hash, 'data_points', points)

if ARGV[4] ~= '' then
  local offsets
  for i, percent in ipairs({ '80', '100' }) do
    local mark = ' ' .. percent .. ':' .. ARGV[4]
    local least = tonumber(ARGV[4 + i])
    if calls >= least and not string.find(marks .. ' ', mark .. ' ', 1, true) then
      if not offsets then
        offsets = {}
        for o in string.gmatch(ARGV[10], '%d+') do
          offsets[#offsets + 1] = o
        end
      end
      -- The first of the new events that is at or beyond the threshold: the first of all if a lowered limit put it there.
      local nth = least - (calls - #new)
      if nth < 1 then
        nth = 1
      end
      marks = marks .. mark
      due = due .. mark .. ':' .. string.format('%.0f', calls - #new + nth) .. ':' .. ARGV[7] .. ':' .. offsets[places[nth]]
      redis.call('HSET', hash, 'marks', marks, 'due', due)
    end
  end
end
if fresh then
  -- Again: if that time has passed, it has deleted the hash, and what came after has made another one.
  redis.call('EXPIREAT', hash, ARGV[2])
end
return string.format('%.0f %.0f', #new, calls) .. due
