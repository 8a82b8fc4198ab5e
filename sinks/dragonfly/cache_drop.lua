-- Deletes a JSON document from the cache, unless it is as new as a change.
--
-- KEYS[1]  the key, for example subscription:{u-1}
-- ARGV[1]  the version of the change
-- ARGV[2]  the origin: which run of Postgres the version belongs to
--
-- Returns 1 if a document was deleted, 0 if there was none, or one of this origin with this version or a higher one: it was cached
-- again since the change. Whatever else is there is deleted.
--
-- By hand:
--   redis-cli --eval cache_drop.lua 'subscription:{u-1}' , 8 a
--
-- The document is not parsed, and the script runs on Lua 5.1 and 5.4, as cache_put.lua says.

-- pcall: the key may hold a list or a hash of another program, and GETRANGE is then an error.
local present = redis.pcall('GETRANGE', KEYS[1], 0, 255)
if type(present) == 'string' then
  local version, origin = string.match(present, '^{"version":(%d+),"cached_from":"([^"\\]*)"')
  if version and origin == ARGV[2] and (#version < 16 or #version == 16 and version <= '9007199254740992') and tonumber(version) >= tonumber(ARGV[1]) then
    return 0
  end
end
return redis.call('DEL', KEYS[1])
