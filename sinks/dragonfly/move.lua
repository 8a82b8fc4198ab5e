-- Moves the progress of one partition, if it is where the caller thinks it is.
--
-- KEYS  1 progress of a topic
-- ARGV  1 epoch    2 field of the partition    3 its value now, '' for none    4 its new value    5 expiry, seconds
--
-- Answer: 'ok', or '<epoch>' and a space and the value that stands there.
local now = redis.call('HMGET', KEYS[1], 'epoch', ARGV[2])
if (now[1] or '') ~= ARGV[1] or (now[2] or '') ~= ARGV[3] then
  return (now[1] or '') .. ' ' .. (now[2] or '')
end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return 'ok'
