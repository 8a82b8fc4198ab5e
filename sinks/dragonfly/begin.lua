-- Begins an epoch, unless another member has: every partition of the topic is to be counted anew.
--
-- KEYS  1 progress of a topic
-- ARGV  1 epoch that is given up, '' for none    2 new epoch    3 expiry, seconds    4 number of partitions
--
-- Answer: the epoch that holds now.
local now = redis.call('HGET', KEYS[1], 'epoch') or ''
if now ~= ARGV[1] then
  return now
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'epoch', ARGV[2])
for p = 0, tonumber(ARGV[4]) - 1 do
  redis.call('HSET', KEYS[1], 'p' .. string.format('%.0f', p), 'new')
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return ARGV[2]
