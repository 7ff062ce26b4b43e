#!lua flags=allow-oom
-- What the journal has still to say about the rows of one slot: the tenants, the databases of a tenant, or the collections of a
-- database. allow-oom: what was changed on a full server has to become durable, too.
--
-- KEYS   1  rows_key      hash: id or name -> row (JSON)
--        2  version_key   number of changes of these rows
--        3  pending_key   hash: id or name of a row that changed and may not be in the journal -> the version that the change made
--        4  epoch_key     epoch of the restoration that was here last (restoring.lua)
--        5  order_key     zset of ids or names by creation; missing for tenants
-- ARGV   1  verb          then its arguments:
--           'observe'     the version, then for each pending row four values: its id or name, the version in `pending_key`, the row
--                         (nil when it is gone), its place in the order (nil when it has none)
--           'clear' id version ..   these changes are in the journal; a row that was changed again since stays pending: 'OK'
--           'restore' version epoch       all rows are in the snapshot of this epoch: the version is at least this, and nothing is
--                         pending: 'OK'; 'LATER', and nothing happens, when the slot was restored in this epoch or a later one

local FIRST_CLEARED = 2
local rows_key, version_key, pending_key, epoch_key, order_key = unpack(KEYS)
local verb, argument, epoch = unpack(ARGV, 1, 3)

local verbs = {}

function verbs.observe()
  local found = { tonumber(redis.call('GET', version_key) or 0) }
  local pending = redis.call('HGETALL', pending_key)
  for index = 1, #pending, 2 do
    local id = pending[index]
    found[#found + 1] = id
    found[#found + 1] = tonumber(pending[index + 1])
    found[#found + 1] = redis.call('HGET', rows_key, id)
    found[#found + 1] = order_key and redis.call('ZSCORE', order_key, id) or false
  end
  return found
end

function verbs.clear()
  for index = FIRST_CLEARED, #ARGV, 2 do
    local id, version = ARGV[index], ARGV[index + 1]
    if redis.call('HGET', pending_key, id) == version then redis.call('HDEL', pending_key, id) end
  end
  return 'OK'
end

function verbs.restore(version)
  if is_restored(epoch_key, epoch) then return 'LATER' end
  redis.call('SET', epoch_key, epoch)
  if tonumber(redis.call('GET', version_key) or 0) < tonumber(version) then redis.call('SET', version_key, version) end
  redis.call('DEL', pending_key)
  return 'OK'
end

if not verbs[verb] then return redis.error_reply('ERR unknown verb') end
return verbs[verb](argument)
