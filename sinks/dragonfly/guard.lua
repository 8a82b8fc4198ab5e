-- Notes since when holds are kept: in which epoch and by which server, and since when. It never creates a sentinel.
--
-- KEYS  1 the first sentinel
-- ARGV  1 field of the topic     2 field of the note     3 epoch     4 server
--       5 the time, seconds since the Unix epoch     6 '0' where nothing was counted before the epoch, so there was nothing to lose; else ''
--
-- The note is '<epoch> <server> <since, seconds since the Unix epoch>'. One of this epoch and server stays as it is. Another one, or none, says that holds
-- may have been forgotten up to now.
--
-- Answer: 1 if it was written, else 0.
if string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^(%d+) ') ~= ARGV[3] then
  return 0
end
local kept = redis.call('HGET', KEYS[1], ARGV[2])
local own = ARGV[3] .. ' ' .. ARGV[4] .. ' '
if kept and string.sub(kept, 1, #own) == own then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[2], own .. (not kept and ARGV[6] ~= '' and ARGV[6] or ARGV[5]))
return 1
