#!lua flags=allow-oom
-- The forks that a family of collections ever made. allow-oom: what was given up must leave a full server, too.
--
-- KEYS   1 the family's forks: set of ids   2 families that have any: set of the ids of their roots
-- ARGV   'add' root fork limit     {'OK', forks}, also when it is there; {'FULL', forks} when there are that many
--        'remove' root fork        it never came to be
--        'forget' root             no member of the family is left

local verb, root, fork = ARGV[1], ARGV[2], ARGV[3]
if verb == 'add' then
  local count = redis.call('SCARD', KEYS[1])
  if redis.call('SISMEMBER', KEYS[1], fork) == 1 then return {'OK', count} end
  if count >= tonumber(ARGV[4]) then return {'FULL', count} end
  redis.call('SADD', KEYS[1], fork)
  redis.call('SADD', KEYS[2], root)
  return {'OK', count + 1}
elseif verb == 'remove' then
  redis.call('SREM', KEYS[1], fork)
  if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('SREM', KEYS[2], root) end
  return {'OK'}
elseif verb == 'forget' then
  redis.call('DEL', KEYS[1])
  redis.call('SREM', KEYS[2], root)
  return {'OK'}
end
return redis.error_reply('ERR unknown verb')
