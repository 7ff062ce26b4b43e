-- The epoch of the restoration that was last in a slot of the catalog, for the scripts that a restoration calls
-- (`uses=["restoring"]` puts this text into them).
--
-- A log service may sleep within a restoration, and go on when another one has restored the slot in a later epoch and opened the
-- cluster: what it would put back may have been deleted since. The epoch is set when all rows of the slot are there.

-- And the version of a slot. One that is missing beside rows, or is no number, was lost: changes must not count from 1 again, or they
-- would seem older than what a snapshot has. Scripts refuse with LOST until the log service has raised it (journal.lua, 'advance').

-- A number under a key; nil when there is none, or something else.
local function number_at(key)
  local value = redis.call('GET', key)
  return value and #value < 16 and value:match('^%d+$') and tonumber(value) or nil
end

local function has_lost_version(version_key, rows_key)
  return not number_at(version_key) and (redis.call('EXISTS', rows_key) == 1 or redis.call('EXISTS', version_key) == 1)
end

-- The version of the change that is being made.
local function next_version(version_key)
  if not number_at(version_key) then redis.call('DEL', version_key) end
  return redis.call('INCR', version_key)
end

-- A row as a table; nil when it cannot be read.
local function decoded(row)
  local can_be_read, fields = pcall(cjson.decode, row)
  return can_be_read and type(fields) == 'table' and fields or nil
end

-- Whether the slot was restored in this epoch or a later one.
local function is_restored(epoch_key, epoch)
  return (number_at(epoch_key) or 0) >= tonumber(epoch)
end
