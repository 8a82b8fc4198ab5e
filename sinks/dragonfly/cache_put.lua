-- Puts a JSON document with a version into the cache, unless a newer one is there.
--
-- KEYS[1]  the key, for example subscription:{u-1}
-- ARGV[1]  the document, a JSON object
-- ARGV[2]  its version, an integer from 1 to 2^53
-- ARGV[3]  the seconds it lives, from 1 on
--
-- Returns 1 if it was stored, 0 if a document with a higher version is there. The same version is stored again: it
-- holds the same rows, and may have a newer quota block. What can't be read as a document with a version is replaced,
-- whatever its type.
--
-- By hand:
--   redis-cli --eval cache_put.lua 'subscription:{u-1}' , '{"user_id":"u-1","version":7}' 7 3600
--
-- Runs on Lua 5.1 (Redis) and 5.4 (Dragonfly): no integer division, no integer turned into a float, no nil in an answer.

local function version_of(text)
  local readable, document = pcall(cjson.decode, text)
  if readable and type(document) == 'table' and type(document.version) == 'number' then
    -- Above 2^53 numbers are not exact any more, and no counter of ours gets there.
    if document.version >= 1 and document.version <= 9007199254740992 then
      return document.version
    end
  end
  return 0
end

-- pcall: the key may hold a list or a hash of somebody else's, and GET is then an error.
local present = redis.pcall('GET', KEYS[1])
if type(present) == 'string' and version_of(present) > tonumber(ARGV[2]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[3])
return 1
