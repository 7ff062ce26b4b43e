#!lua flags=allow-oom
-- The tenants. A row is JSON: key (unique for ever), resource_name.
--
-- KEYS   1 tenants: name -> row   2 resources: resource name -> tenant   3 trash: removed, databases not yet cleared
--        4 cleared: removed, databases cleared and to be collected   5 number of changes of the whole catalog
-- ARGV   'create' name row           'OK', also when this very row is there; 'EXISTS'; 'TRASHED' until it was cleared
--        'resource' name value       'OK', 'OTHER' when the tenant or the value is bound otherwise, 'MISSING'
--        'reset'                     moves every tenant to the trash: the commit of a reset
--        'cleared' name              a tenant's databases are in its own trash now
--        'collected' name            and nothing is left of them
--        'changed'                   counts a change of the catalog

local verb, name = ARGV[1], ARGV[2]
local row = name and redis.call('HGET', KEYS[1], name)
if verb == 'create' then
  if row then return row == ARGV[3] and 'OK' or 'EXISTS' end
  if redis.call('SISMEMBER', KEYS[3], name) == 1 then return 'TRASHED' end
  redis.call('HSET', KEYS[1], name, ARGV[3])
  return 'OK'
elseif verb == 'resource' then
  if not row then return 'MISSING' end
  local fields = cjson.decode(row)
  if fields.resource_name ~= cjson.null then return fields.resource_name == ARGV[3] and 'OK' or 'OTHER' end
  if redis.call('HEXISTS', KEYS[2], ARGV[3]) == 1 then return 'OTHER' end
  fields.resource_name = ARGV[3]
  redis.call('HSET', KEYS[1], name, cjson.encode(fields))
  redis.call('HSET', KEYS[2], ARGV[3], name)
  return 'OK'
elseif verb == 'reset' then
  for _, tenant in ipairs(redis.call('HKEYS', KEYS[1])) do redis.call('SADD', KEYS[3], tenant) end
  redis.call('DEL', KEYS[1], KEYS[2])
  return 'OK'
elseif verb == 'cleared' then
  redis.call('SMOVE', KEYS[3], KEYS[4], name)
  return 'OK'
elseif verb == 'collected' then
  redis.call('SREM', KEYS[4], name)
  return 'OK'
elseif verb == 'changed' then
  return redis.call('INCR', KEYS[5])
end
return redis.error_reply('ERR unknown verb')
