-- Ends holds of a user and day. count.lua does the same for those that its events name.
--
-- KEYS  1 hash with the holds, see reserve.lua
-- ARGV  ids of reservations, each once, a thousand at most
--
-- Answer: how many there were.
local ended = redis.call('HMGET', KEYS[1], '.', (table.unpack or unpack)(ARGV))
if not ended[1] then
  return 0
end
local calls, points, first = string.match(ended[1], '^(%d+) (%d+) (%d+)$')
calls, points = tonumber(calls), tonumber(points)
local n = 0
for i = 1, #ARGV do
  local _, c, p = string.match(ended[i + 1] or '', '^(%d+) (%d+) (%d+)$')
  if c then
    calls, points, n = calls - tonumber(c), points - tonumber(p), n + 1
  end
end
if n > 0 then
  -- The holds before their sum, as in reserve.lua.
  redis.call('HDEL', KEYS[1], (table.unpack or unpack)(ARGV))
  if redis.call('HLEN', KEYS[1]) == 1 then
    redis.call('DEL', KEYS[1])
  else
    redis.call('HSET', KEYS[1], '.', string.format('%d %d %s', calls, points, first))
  end
end
return n
