-- Takes an epoch out of a sentinel, unless another has begun since.
--
-- KEYS  1 a sentinel
-- ARGV  1 field of the topic     2 what the field held when the doubt arose
--
-- Answer: 1 if it was taken out, else 0.
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then
  redis.call('HDEL', KEYS[1], ARGV[1])
  return 1
end
return 0
