-- Notes that threshold events were published: they are no longer due, and stay reached.
--
-- KEYS  1 hash with the counters of a user and day
-- ARGV  entries of its field marks, as count.lua answered them
--
-- Answer: how many of them were due.
local marks = redis.call('HGET', KEYS[1], 'marks')
if not marks then
  return 0
end
local left, n = '', 0
for entry in string.gmatch(marks, '%S+') do
  for i = 1, #ARGV do
    if ARGV[i] == entry then
      entry = string.match(entry, '^%d+:%d+') or entry
      n = n + 1
      break
    end
  end
  left = left .. ' ' .. entry
end
if n > 0 then
  redis.call('HSET', KEYS[1], 'marks', left)
end
return n
