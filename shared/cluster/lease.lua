#!lua flags=allow-oom
-- A lease: one holder at a time, until it expires. allow-oom: the processes that empty a full server need theirs.
--
-- KEYS   1  lease_key   string that expires: the holder
-- ARGV   1  verb
--           'acquire'   1 when the holder has it now (anew or still), else 0
--           'renew'     1, or 0 when the holder does not have it
--           'release'   1, or 0 when the holder does not have it
--        2  holder      name of the process
--        3  ttl_ms      how long the holder has it from now on ('acquire' and 'renew')

local lease_key = KEYS[1]
local verb, holder, ttl_ms = unpack(ARGV)

local current = redis.call('GET', lease_key)
local is_mine = current == holder
if verb == 'release' then return is_mine and redis.call('DEL', lease_key) or 0 end
if is_mine or (verb == 'acquire' and not current) then
  redis.call('SET', lease_key, holder, 'PX', ttl_ms)
  return 1
end
return 0
