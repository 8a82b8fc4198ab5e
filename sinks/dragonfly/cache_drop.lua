-- Deletes a JSON document from the cache, unless it is as new as a change.
--
-- KEYS[1]  the key, for example subscription:{u-1}
-- ARGV[1]  the version of the change
--
-- Returns 1 if a document was deleted, 0 if there was none or it has this version or a higher one: then somebody has
-- cached it again since the change. What can't be read as a document with a version is deleted, whatever its type.
--
-- By hand:
--   redis-cli --eval cache_drop.lua 'subscription:{u-1}' , 8
--
-- Runs on Lua 5.1 (Redis) and 5.4 (Dragonfly).

-- pcall: the key may hold a list or a hash of somebody else's, and GET is then an error.
local present = redis.pcall('GET', KEYS[1])
if type(present) == 'string' then
  local readable, document = pcall(cjson.decode, present)
  if readable and type(document) == 'table' and type(document.version) == 'number' and document.version >= tonumber(ARGV[1]) then
    return 0
  end
end
return redis.call('DEL', KEYS[1])
