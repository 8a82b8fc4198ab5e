-- Begins an epoch in a sentinel, unless another process has begun one later than the one in doubt.
--
-- KEYS  1 a sentinel
-- ARGV  1 field of the topic     2 the highest epoch in doubt, 0 for none
--       3 the new epoch          4 what follows it in the field     5 expiry, seconds
--
-- Answer: the epoch that holds now.
local epoch = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^(%d+) ')
if epoch and tonumber(epoch) > tonumber(ARGV[2]) then
  return epoch
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3] .. ' ' .. ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return ARGV[3]
