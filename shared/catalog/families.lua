#!lua flags=allow-oom
-- The forks that a family of collections ever made. allow-oom: what was given up must leave a full server, too.
--
-- KEYS   1  forks_key      set of the ids of the family's forks
--        2  families_key   set of the roots of the families that have forks
-- ARGV   1  verb
--           'add'      {'OK', forks}, also when the fork is there; {'FULL', forks} when there are `forks_max`
--           'remove'   the fork never came to be: {'OK'}
--           'forget'   no member of the family is left: {'OK'}
--        2  root         id of the family's original
--        3  fork         id ('add' and 'remove')
--        4  forks_max    forks that a family may have ('add')

local forks_key, families_key = KEYS[1], KEYS[2]
local verb, root, fork, forks_max = unpack(ARGV)

if verb == 'add' then
  local count = redis.call('SCARD', forks_key)
  if redis.call('SISMEMBER', forks_key, fork) == 1 then return {'OK', count} end
  if count >= tonumber(forks_max) then return {'FULL', count} end
  redis.call('SADD', forks_key, fork)
  redis.call('SADD', families_key, root)
  return {'OK', count + 1}
elseif verb == 'remove' then
  redis.call('SREM', forks_key, fork)
  if redis.call('EXISTS', forks_key) == 0 then redis.call('SREM', families_key, root) end
  return {'OK'}
elseif verb == 'forget' then
  redis.call('DEL', forks_key)
  redis.call('SREM', families_key, root)
  return {'OK'}
end
return redis.error_reply('ERR unknown verb')
