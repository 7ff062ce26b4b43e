#!lua flags=allow-oom
-- The databases of one tenant. A row is JSON: id, key (unique for ever).
--
-- KEYS   1 databases: name -> row   2 order: name by time of creation   3 trash: keys of deleted databases
-- ARGV   'create' name row    'OK', also when this very row is there; 'EXISTS'
--        'delete' name key    removes it if it still has this key, and remembers the key: the commit of a deletion
--        'clear'              the same for all of them
--        'collected' key      nothing is left of a deleted database

local verb = ARGV[1]

local function remove(name, row)
  redis.call('SADD', KEYS[3], cjson.decode(row).key)
  redis.call('HDEL', KEYS[1], name)
  redis.call('ZREM', KEYS[2], name)
end

if verb == 'create' then
  local row = redis.call('HGET', KEYS[1], ARGV[2])
  if row then return row == ARGV[3] and 'OK' or 'EXISTS' end
  local newest = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
  redis.call('ZADD', KEYS[2], (newest[2] or 0) + 1, ARGV[2])
  return 'OK'
elseif verb == 'delete' then
  local row = redis.call('HGET', KEYS[1], ARGV[2])
  if row and cjson.decode(row).key == ARGV[3] then remove(ARGV[2], row) end
  return 'OK'
elseif verb == 'clear' then
  local all = redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do remove(all[i], all[i + 1]) end
  return 'OK'
elseif verb == 'collected' then
  redis.call('SREM', KEYS[3], ARGV[2])
  return 'OK'
end
return redis.error_reply('ERR unknown verb')
