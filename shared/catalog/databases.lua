#!lua flags=allow-oom
-- The databases of one tenant. A row is JSON: id, key (unique for ever). allow-oom: what leaves a full server is never refused.
-- What makes the catalog larger for a client ('add', 'resource', 'update') runs without that flag (shared/catalog/scripts.py).
--
-- KEYS   1  databases_key   hash: name -> row
--        2  order_key       zset of names by time of creation
--        3  trash_key       set of the keys of deleted databases
--        4  version_key     number of changes of the rows of this tenant
--        5  pending_key     hash: name of a row that changed and may not be in the journal -> the version that the change made
--        6  epoch_key       epoch of the restoration that was here last (restoring.lua)
-- ARGV   1  verb            then its arguments:
--           'create' name row    'OK', also when this very row is there; 'EXISTS'
--           'add' name row most  as 'create'; 'FULL' when the tenant would have more than `most` databases
--           'delete' name key    removes the database if it still has this key, and remembers the key: 'OK'. The commit of a deletion
--           'clear' version      removes all of them, and remembers their keys: 'OK'; 'LATER', and nothing happens, unless this is
--                                the version of the slot
--           'recover' version name row   puts back what is missing of a database that is not deleted, its row and its place in
--                                the order: 'OK'; 'TAKEN' when the name has another row; 'GONE' when it is deleted; 'LATER', and
--                                nothing happens, unless this is the version of the slot
--           'unplace' name       takes a name from the order that no row has: 1 when it was there, else 0
--           'collected' key      forgets the key of a deleted database of which nothing is left: 'OK'
--        'LOST', and nothing happens, when the slot's version was lost
--           'restoring' epoch verb ..    for a restoration: does this, unless the slot was restored in this epoch or a later one:
--                  then 'LATER'

local CHANGING = { create = true, add = true, delete = true }
local databases_key, order_key, trash_key, version_key, pending_key, epoch_key = unpack(KEYS)
local verb = ARGV[1]

local function changed(name) redis.call('HSET', pending_key, name, next_version(version_key)) end

-- The key in a row; nil when that cannot be read.
local function key_of(row) return (decoded(row) or {}).key end

local function remove(name, row)
  -- Of a removed tenant nobody knows what was in a row that cannot be read: the database's collections are not found any more.
  if key_of(row) then redis.call('SADD', trash_key, key_of(row)) end
  redis.call('HDEL', databases_key, name)
  redis.call('ZREM', order_key, name)
  changed(name)
end

local verbs = {}

function verbs.create(name, row)
  local present = redis.call('HGET', databases_key, name)
  if present then return present == row and 'OK' or 'EXISTS' end
  local _, newest = unpack(redis.call('ZREVRANGE', order_key, 0, 0, 'WITHSCORES'))
  redis.call('HSET', databases_key, name, row)
  redis.call('ZADD', order_key, (newest or 0) + 1, name)
  changed(name)
  return 'OK'
end

function verbs.add(name, row, most)
  local is_new = redis.call('HEXISTS', databases_key, name) == 0
  if is_new and redis.call('HLEN', databases_key) >= tonumber(most) then return 'FULL' end
  return verbs.create(name, row)
end

function verbs.delete(name, key)
  local present = redis.call('HGET', databases_key, name)
  if present and key_of(present) == key then remove(name, present) end
  return 'OK'
end

function verbs.clear(version)
  if (number_at(version_key) or 0) ~= tonumber(version) then return 'LATER' end
  for _, name in ipairs(redis.call('HKEYS', databases_key)) do remove(name, redis.call('HGET', databases_key, name)) end
  return 'OK'
end

function verbs.recover(version, name, row)
  if (number_at(version_key) or 0) ~= tonumber(version) then return 'LATER' end
  local present = redis.call('HGET', databases_key, name)
  if present and present ~= row then return 'TAKEN' end
  if redis.call('SISMEMBER', trash_key, key_of(row)) == 1 then return 'GONE' end
  redis.call('HSET', databases_key, name, row)
  local _, newest = unpack(redis.call('ZREVRANGE', order_key, 0, 0, 'WITHSCORES'))
  redis.call('ZADD', order_key, 'NX', (newest or 0) + 1, name)
  return 'OK'
end

function verbs.unplace(name)
  if redis.call('HEXISTS', databases_key, name) == 1 then return 0 end
  return redis.call('ZREM', order_key, name)
end

function verbs.collected(key)
  redis.call('SREM', trash_key, key)
  return 'OK'
end

function verbs.restoring(epoch, name, ...)
  if is_restored(epoch_key, epoch) then return 'LATER' end
  return verbs[name](...)
end

if not verbs[verb] then return redis.error_reply('ERR unknown verb') end
if CHANGING[verb] and has_lost_version(version_key, databases_key) then return 'LOST' end
return verbs[verb](unpack(ARGV, 2))
