-- Notes in a sentinel up to where a partition is counted, if the sentinel is in the caller's epoch. It never creates a
-- sentinel, and never lowers the progress.
--
-- KEYS  1 a sentinel
-- ARGV  1 field of the topic     2 epoch           3 field of the partition     4 incarnation of its log
--       5 progress               6 what follows    7 expiry, seconds
--
-- Answer: 'noted'; or what stands in the way: 'missing', 'epoch <epoch>' or 'incarnation <incarnation>'.
local now = redis.call('HMGET', KEYS[1], ARGV[1], ARGV[3])
local epoch = string.match(now[1] or '', '^(%d+) ')
if not epoch then
  return 'missing'
elseif epoch ~= ARGV[2] then
  return 'epoch ' .. epoch
end
local progress = ARGV[5]
local of, incarnation, there = string.match(now[2] or '', '^(%d+) (%d+) (%d+) ')
if of == epoch then
  if tonumber(incarnation) > tonumber(ARGV[4]) then
    return 'incarnation ' .. incarnation
  elseif incarnation == ARGV[4] and tonumber(there) > tonumber(progress) then
    progress = there
  end
end
redis.call('HSET', KEYS[1], ARGV[3], epoch .. ' ' .. ARGV[4] .. ' ' .. progress .. ' ' .. ARGV[6])
redis.call('EXPIRE', KEYS[1], ARGV[7])
return 'noted'
