-- Puts a JSON document with a version into the cache, unless a newer one is there.
--
-- KEYS[1]  the key, for example subscription:{u-1}
-- ARGV[1]  the document, a JSON object that begins with {"version":7,"cached_from":"a"
-- ARGV[2]  its version, an integer from 1 to 2^53
-- ARGV[3]  its origin: which run of Postgres the version belongs to
-- ARGV[4]  the seconds it lives, from 1 on
--
-- Returns 1 if it was stored, 0 if a document of the same origin with a higher version is there. The same version is stored again: it
-- holds the same rows, and may have a newer quota block. Whatever else is there is replaced.
--
-- By hand:
--   redis-cli --eval cache_put.lua 'subscription:{u-1}' , '{"version":7,"cached_from":"a","user_id":"u-1"}' 7 a 3600
--
-- The document is not parsed: JSON that is nested deeply enough, which any client of the server could write there, ends a whole
-- Dragonfly. Runs on Lua 5.1 (Redis) and 5.4 (Dragonfly): no integer division, no integer turned into a float, no nil in an answer.

-- pcall: the key may hold a list or a hash of another program, and GETRANGE is then an error.
local present = redis.pcall('GETRANGE', KEYS[1], 0, 255)
if type(present) == 'string' then
  local version, origin = string.match(present, '^{"version":(%d+),"cached_from":"([^"\\]*)"')
  -- Above 2^53 numbers are not exact any more, and no counter of ours gets there: compared as text, of equal length.
  if version and origin == ARGV[3] and (#version < 16 or #version == 16 and version <= '9007199254740992') and tonumber(version) > tonumber(ARGV[2]) then
    return 0
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[4])
return 1
