-- Makes the sums of a user's day what the shares in its hash add up to. A share that can't be read is taken out.
--
-- KEYS  1 hash with the counters
--
-- Answer: 1 if something was changed, else 0.
local most = 9007199254740992
local all = redis.call('HGETALL', KEYS[1])
if #all == 0 then
  return 0
end
local calls, points, said_calls, said_points, unread = 0, 0, '', '', {}
for i = 1, #all, 2 do
  local field, value = all[i], all[i + 1]
  if field == 'api_calls' then
    said_calls = value
  elseif field == 'data_points' then
    said_points = value
  elseif string.find(field, '.', 1, true) then
    local c, p = string.match(value, '^%d+ %d+ (%d+) (%d+)$')
    if c then
      calls, points = math.min(most, calls + tonumber(c)), math.min(most, points + tonumber(p))
    else
      unread[#unread + 1] = field
    end
  end
end
local sum_calls, sum_points = string.format('%.0f', calls), string.format('%.0f', points)
if #unread == 0 and said_calls == sum_calls and said_points == sum_points then
  return 0
end
redis.call('HSET', KEYS[1], 'api_calls', sum_calls, 'data_points', sum_points)
for _, field in ipairs(unread) do
  redis.call('HDEL', KEYS[1], field)
end
return 1
