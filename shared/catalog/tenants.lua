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
--           'unowned' version resource name  forgets the owner of a resource name which is not that tenant's: 'OK'; 'LATER', and
--                                      nothing happens, unless this is the version of the slot
--           'remove' name              moves a tenant to the trash: 'OK'. The commit of its deletion
--           'reset'                    moves every tenant to the trash: 'OK'. The commit of a reset
--           'cleared' name version     a removed tenant's databases are in its own trash now: 'OK'; 'LATER', and nothing happens,
--                                      unless this is the version of the slot
--           'collected' name           nothing is left of a removed tenant: 'OK'
--           'changed'                  counts a change of the catalog: the number of changes
--           'counted' least            for a restoration: makes the number of changes at least this: 'OK'
--        'LOST', and nothing happens, when the slot's version, the number of changes or a row that is needed was lost
--           'restoring' epoch verb ..    for a restoration: does this, unless the slot was restored in this epoch or a later one:
--                  then 'LATER'

local tenants_key, resources_key, trash_key, cleared_key, changes_key, version_key, pending_key, epoch_key =
  unpack(KEYS)
local verb = ARGV[1]

local CHANGING = { create = true, add = true, resource = true, remove = true, reset = true }

local function changed(name) redis.call('HSET', pending_key, name, next_version(version_key)) end

-- The resource name of a tenant; cjson.null while it has none, nil when its row cannot be read.
local function resource_of(name) return (decoded(redis.call('HGET', tenants_key, name)) or {}).resource_name end

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
  if (number_at(version_key) or 0) ~= tonumber(version) then return 'LATER' end
  if redis.call('SISMEMBER', trash_key, name) == 1 then return 'GONE' end
  redis.call('HSETNX', tenants_key, name, row)
  local resource = resource_of(name)
  if type(resource) == 'string' then redis.call('HSETNX', resources_key, resource, name) end
  return 'OK'
end

function verbs.unowned(version, resource, name)
  if (number_at(version_key) or 0) ~= tonumber(version) then return 'LATER' end
  if redis.call('HGET', resources_key, resource) == name then redis.call('HDEL', resources_key, resource) end
  return 'OK'
end

function verbs.remove(name)
  if redis.call('HEXISTS', tenants_key, name) == 0 then return 'OK' end
  local resource = resource_of(name)
  if type(resource) == 'string' then redis.call('HDEL', resources_key, resource) end
  redis.call('SADD', trash_key, name)
  redis.call('HDEL', tenants_key, name)
  changed(name)
  return 'OK'
end

function verbs.resource(name, resource)
  local present = redis.call('HGET', tenants_key, name)
  if not present then return 'MISSING' end
  local row = decoded(present)
  if not row then return 'LOST' end
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
  if (number_at(version_key) or 0) ~= tonumber(version) then return 'LATER' end
  redis.call('SMOVE', trash_key, cleared_key, name)
  return 'OK'
end

function verbs.collected(name)
  redis.call('SREM', cleared_key, name)
  return 'OK'
end

function verbs.changed()
  -- The first change of all is counted after it was made. A number that was lost must not begin anew: an entry of the journal
  -- whose number is not beyond the newest snapshot's counts for nothing.
  local is_new = (number_at(version_key) or 0) <= 1 and redis.call('EXISTS', changes_key) == 0
  if has_lost_version(version_key, tenants_key) or not (number_at(changes_key) or is_new) then return 'LOST' end
  return redis.call('INCR', changes_key)
end

function verbs.counted(least)
  if (number_at(changes_key) or 0) < tonumber(least) then redis.call('SET', changes_key, least) end
  return 'OK'
end

function verbs.restoring(epoch, name, ...)
  if is_restored(epoch_key, epoch) then return 'LATER' end
  return verbs[name](...)
end

if not verbs[verb] then return redis.error_reply('ERR unknown verb') end
if CHANGING[verb] and has_lost_version(version_key, tenants_key) then return 'LOST' end
return verbs[verb](unpack(ARGV, 2))
