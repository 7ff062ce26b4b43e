#!lua flags=allow-oom
-- The tenants. A row is JSON: key (unique for ever), resource_name (null until it is set). allow-oom: what leaves a full server is
-- never refused.
--
-- KEYS   1  tenants_key     hash: name -> row
--        2  resources_key   hash: resource name -> name of the tenant
--        3  trash_key       set of the names of removed tenants whose databases are not in their own trash yet
--        4  cleared_key     set of the names of removed tenants whose databases are, and have to be collected
--        5  changes_key     number of changes of the whole catalog
-- ARGV   1  verb            then its arguments:
--           'create' name row          'OK', also when this very row is there; 'EXISTS'; 'TRASHED' until a reset is through with it
--           'resource' name resource   'OK'; 'OTHER' when the tenant has another one or the value another tenant; 'MISSING'
--           'reset'                    moves every tenant to the trash: 'OK'. The commit of a reset
--           'cleared' name             a removed tenant's databases are in its own trash now: 'OK'
--           'collected' name           nothing is left of a removed tenant: 'OK'
--           'changed'                  counts a change of the catalog: the number of changes

local tenants_key, resources_key, trash_key, cleared_key, changes_key = unpack(KEYS)
local verb = ARGV[1]

local verbs = {}

function verbs.create(name, row)
  local present = redis.call('HGET', tenants_key, name)
  if present then return present == row and 'OK' or 'EXISTS' end
  if redis.call('SISMEMBER', trash_key, name) == 1 then return 'TRASHED' end
  redis.call('HSET', tenants_key, name, row)
  return 'OK'
end

function verbs.resource(name, resource)
  local present = redis.call('HGET', tenants_key, name)
  if not present then return 'MISSING' end
  local row = cjson.decode(present)
  if row.resource_name ~= cjson.null then return row.resource_name == resource and 'OK' or 'OTHER' end
  if redis.call('HEXISTS', resources_key, resource) == 1 then return 'OTHER' end
  row.resource_name = resource
  redis.call('HSET', tenants_key, name, cjson.encode(row))
  redis.call('HSET', resources_key, resource, name)
  return 'OK'
end

function verbs.reset()
  for _, name in ipairs(redis.call('HKEYS', tenants_key)) do redis.call('SADD', trash_key, name) end
  redis.call('DEL', tenants_key, resources_key)
  return 'OK'
end

function verbs.cleared(name)
  redis.call('SMOVE', trash_key, cleared_key, name)
  return 'OK'
end

function verbs.collected(name)
  redis.call('SREM', cleared_key, name)
  return 'OK'
end

function verbs.changed() return redis.call('INCR', changes_key) end

if not verbs[verb] then return redis.error_reply('ERR unknown verb') end
return verbs[verb](unpack(ARGV, 2))
