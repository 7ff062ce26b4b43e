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
--           'mend' id garbled row version   puts the row in the place of one that cannot be read, if it is this one still: 'OK', or
--                         'CHANGED'. Without a row ('') it is removed. 'PENDING', and nothing happens, when the row was changed
--                         after this version: an entry of the journal may be on its way. Version -1: then it is pending no more
--           'advance' least   the version is at least this. One that was lost becomes later than this, and than all that is pending:
--                         1 when the version was too low or lost, else 0
--           'forget'          removes a version that cannot be read: 1, or 0
--           'restore' version epoch       all rows are in the snapshot of this epoch: the version is at least this, and nothing is
--                         pending: 'OK'; 'LATER', and nothing happens, when the slot was restored in this epoch or a later one

local FIRST_CLEARED = 2
local rows_key, version_key, pending_key, epoch_key, order_key = unpack(KEYS)
local verb, argument, epoch = unpack(ARGV, 1, 3)

local verbs = {}

function verbs.observe()
  local found = { number_at(version_key) or 0 }
  local pending = redis.call('HGETALL', pending_key)
  for index = 1, #pending, 2 do
    local id = pending[index]
    found[#found + 1] = id
    if not tonumber(pending[index + 1]) then -- it was garbled; the row has had its last change at the present version at the latest
      pending[index + 1] = found[1]
      redis.call('HSET', pending_key, id, found[1])
    end
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

function verbs.mend(id)
  local garbled, row, version = unpack(ARGV, 3, 5)
  if redis.call('HGET', rows_key, id) ~= garbled then return 'CHANGED' end
  local pending = tonumber(redis.call('HGET', pending_key, id) or 0) or 0
  if tonumber(version) == -1 then
    redis.call('HDEL', pending_key, id)
  elseif pending > tonumber(version) then
    return 'PENDING'
  end
  if row == '' then redis.call('HDEL', rows_key, id) else redis.call('HSET', rows_key, id, row) end
  return 'OK'
end

function verbs.advance(least)
  local version = number_at(version_key)
  if version and version >= tonumber(least) then return 0 end
  if not version and tonumber(least) == 0 and redis.call('EXISTS', rows_key, version_key) == 0 then return 0 end
  local latest = math.max(version or 0, tonumber(least))
  for _, pending in ipairs(redis.call('HVALS', pending_key)) do latest = math.max(latest, tonumber(pending) or 0) end
  redis.call('SET', version_key, string.format('%.0f', latest + 1))
  return 1
end

function verbs.forget()
  return not number_at(version_key) and redis.call('DEL', version_key) or 0
end

function verbs.restore(version)
  if is_restored(epoch_key, epoch) then return 'LATER' end
  redis.call('SET', epoch_key, epoch)
  if (number_at(version_key) or 0) < tonumber(version) then redis.call('SET', version_key, version) end
  redis.call('DEL', pending_key)
  return 'OK'
end

if not verbs[verb] then return redis.error_reply('ERR unknown verb') end
return verbs[verb](argument)
