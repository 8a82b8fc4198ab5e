-- Takes threshold events that were published off the list of those that are due.
--
-- KEYS  1 hash with the counters of a user and day
-- ARGV  entries of its field due, as count.lua answered them, without the space before each
--
-- Answer: how many are still due.
local due = redis.call('HGET', KEYS[1], 'due')
if not due then
  return 0
end
local left, n = '', 0
for entry in string.gmatch(due, '%S+') do
  local published = false
  for i = 1, #ARGV do
    published = published or ARGV[i] == entry
  end
  if not published then
    left = left .. ' ' .. entry
    n = n + 1
  end
end
if n == 0 then
  redis.call('HDEL', KEYS[1], 'due')
else
  redis.call('HSET', KEYS[1], 'due', left)
end
return n
