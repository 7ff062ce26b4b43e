#!lua flags=allow-oom
-- The registry of damage: what some process found damaged, by name. allow-oom: small and bounded, and nobody may be kept from
-- reporting what is lost.
--
-- KEYS   1  damage_key   hash: name -> '<ms since the epoch when it was found first> <JSON>'
-- ARGV   1  verb         then its arguments:
--           'report' names_max name json    notes the damage, or what is newer about it: 1; 0 when there are names_max others
--           'clear' name ..                 forgets it, for it is whole again, replaced or given up: how many were there

local FIRST_NAME = 2
local damage_key = KEYS[1]
local verb, names_max, name, json = unpack(ARGV, 1, 4)

if verb == 'report' then
  local known = redis.call('HGET', damage_key, name)
  if not known and redis.call('HLEN', damage_key) >= tonumber(names_max) then return 0 end
  local found_ms = known and string.match(known, '^%d+')
  if not found_ms then
    local seconds, microseconds = unpack(redis.call('TIME'))
    found_ms = string.format('%d', seconds * 1000 + math.floor(microseconds / 1000))
  end
  redis.call('HSET', damage_key, name, found_ms .. ' ' .. json)
  return 1
elseif verb == 'clear' then
  local cleared = 0
  for i = FIRST_NAME, #ARGV do cleared = cleared + redis.call('HDEL', damage_key, ARGV[i]) end
  return cleared
end
return redis.error_reply('ERR unknown verb')
