#!lua flags=allow-oom
-- The tenants. A row is JSON: key (unique for ever), resource_name (null until it is set). allow-oom: what leaves a full server is
-- never refused.
-- What makes the catalog larger for a client ('add', 'resource', 'update') runs without that flag (shared/catalog/scripts.py).
--
-- KEYS   1  tenants_key     hash: name -> row
--        2  resources_key   hash: resource name -> name of the tenant
--        3  trash_key       set of the names of removed tenants whose databases are not in their own trash yet
--        4  cleared_key     set of the names of removed tenants whose databases are, and have to be collected
--        5  changes_key     number of changes of the whole catalog, of all slots
--        6  version_key     number of changes of the tenants' rows
--        7  pending_key     hash: name of a row that changed and may not be in the journal -> the version that the change made
--        8  epoch_key       epoch of the restoration that was here last (restoring.lua)
-- ARGV   1  verb            then its arguments:
--           'create' name row          'OK', also when this very row is there; 'EXISTS'; 'TRASHED' until a reset is through with it
--           'add' name row most        as 'create'; 'FULL' when there would be more than `most` tenants
--           'resource' name resource   'OK'; 'OTHER' when the tenant has another one or the value another tenant; 'MISSING'
--           'replace' name row         for a restoration: puts the row of a tenant that is there: 'OK'
--           'named' name resource      for a restoration: the resource name is that of the tenant: 'OK'
--           'recover' version name row  puts back what is missing of a tenant that is not removed: its row (this one, if there is
--                                      none), and that its resource name is its own: 'OK'; 'GONE'; 'LATER', and nothing happens,
--                                      unless this is the version of the slot
--           'remove' name              moves a tenant to the trash: 'OK'. The commit of its deletion
--           'reset'                    moves every tenant to the trash: 'OK'. The commit of a reset
--           'cleared' name version     a removed tenant's databases are in its own trash now: 'OK'; 'LATER', and nothing happens,
--                                      unless this is the version of the slot
--           'collected' name           nothing is left of a removed tenant: 'OK'
--           'changed'                  counts a change of the catalog: the number of changes
--           'counted' least            for a restoration: makes the number of changes at least this: 'OK'
--           'restoring' epoch verb ..    for a restoration: does this, unless the slot was restored in this epoch or a later one:
--                  then 'LATER'

local tenants_key, resources_key, trash_key, cleared_key, changes_key, version_key, pending_key, epoch_key =
  unpack(KEYS)
local verb = ARGV[1]

local function changed(name) redis.call('HSET', pending_key, name, redis.call('INCR', version_key)) end

local verbs = {}

function verbs.create(name, row)
  local present = redis.call('HGET', tenants_key, name)
  if present then return present == row and 'OK' or 'EXISTS' end
  if redis.call('SISMEMBER', trash_key, name) == 1 then return 'TRASHED' end
  redis.call('HSET', tenants_key, name, row)
  changed(name)
  return 'OK'
end

function verbs.add(name, row, most)
  local is_new = redis.call('HEXISTS', tenants_key, name) == 0
  if is_new and redis.call('HLEN', tenants_key) >= tonumber(most) then return 'FULL' end
  return verbs.create(name, row)
end

function verbs.replace(name, row)
  if redis.call('HEXISTS', tenants_key, name) == 0 then return 'OK' end
  redis.call('HSET', tenants_key, name, row)
  changed(name)
  return 'OK'
end

function verbs.named(name, resource)
  redis.call('HSET', resources_key, resource, name)
  return 'OK'
end

function verbs.recover(version, name, row)
  if (redis.call('GET', version_key) or '0') ~= version then return 'LATER' end
  if redis.call('SISMEMBER', trash_key, name) == 1 then return 'GONE' end
  redis.call('HSETNX', tenants_key, name, row)
  local resource = cjson.decode(redis.call('HGET', tenants_key, name)).resource_name
  if resource ~= cjson.null then redis.call('HSETNX', resources_key, resource, name) end
  return 'OK'
end

function verbs.remove(name)
  if redis.call('HEXISTS', tenants_key, name) == 0 then return 'OK' end
  local resource = cjson.decode(redis.call('HGET', tenants_key, name)).resource_name
  if resource ~= cjson.null then redis.call('HDEL', resources_key, resource) end
  redis.call('SADD', trash_key, name)
  redis.call('HDEL', tenants_key, name)
  changed(name)
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
  changed(name)
  return 'OK'
end

function verbs.reset()
  for _, name in ipairs(redis.call('HKEYS', tenants_key)) do
    redis.call('SADD', trash_key, name)
    changed(name)
  end
  redis.call('DEL', tenants_key, resources_key)
  return 'OK'
end

function verbs.cleared(name, version)
  if (redis.call('GET', version_key) or '0') ~= version then return 'LATER' end
  redis.call('SMOVE', trash_key, cleared_key, name)
  return 'OK'
end

function verbs.collected(name)
  redis.call('SREM', cleared_key, name)
  return 'OK'
end

function verbs.changed() return redis.call('INCR', changes_key) end

function verbs.counted(least)
  if tonumber(redis.call('GET', changes_key) or 0) < tonumber(least) then redis.call('SET', changes_key, least) end
  return 'OK'
end

function verbs.restoring(epoch, name, ...)
  if is_restored(epoch_key, epoch) then return 'LATER' end
  return verbs[name](...)
end

if not verbs[verb] then return redis.error_reply('ERR unknown verb') end
return verbs[verb](unpack(ARGV, 2))
