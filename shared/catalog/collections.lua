#!lua flags=allow-oom
-- The collections of one database. A row is JSON; `generation` in it counts its changes. allow-oom: what leaves a full server is
-- never refused, and a row is small beside what is behind it.
-- What makes the catalog larger for a client ('add', 'resource', 'update') runs without that flag (shared/catalog/scripts.py).
--
-- KEYS   1  names_key       hash: name -> id
--        2  rows_key        hash: id -> row
--        3  order_key       zset of ids by time of creation
--        4  trash_key       set of ids to be marked deleted and collected
--        5  closed_key      string, there once the database is deleted
--        6  functions_key   hash: id of an input -> id of the output that it was given last. An entry counts only as long as the
--                           output's row names the input
--        7  version_key     number of changes of the rows of this database
--        8  pending_key     hash: id of a row that changed and may not be in the journal -> the version that the change made
--        9  epoch_key       epoch of the restoration that was here last (restoring.lua)
--       10  forgotten_key   how often deleted collections were forgotten
-- ARGV   1  verb            then its arguments:
--           'create' name id row [input]
--                  {'OK'}, also when this id has taken the name before; {'TAKEN', id} when another one has it; {'CLOSED'};
--                  {'TRASHED'} when the id was given up as an orphan
--           'add' name id row most [input]
--                  as 'create'; {'FULL'} when the database would have more than `most` collections
--           'update' id generation name row [input]
--                  puts the row, which has this generation and name: {'OK'}, also when it is there; {'STALE'} unless the present
--                  row has the generation before this one; {'TAKEN', id} when another one has the name
--           'feed' input output
--                  notes the output of an input, for a restoration: {'OK'}
--           'replace' name id row
--                  for a restoration: puts the row of a collection that is there, whatever its generation and whoever has the name:
--                  {'OK'}
--           'forgotten'
--                  {seen}: a word that changes whenever deleted collections leave the trash, where 'recover' would see that they
--                  were deleted
--           'recover' seen id row
--                  puts back what is missing of a collection that is not deleted: its name, its row (this one, if there is none; ''
--                  where it is not known) and its place in the order: {'OK'}; {'TAKEN', id} when another one has the name;
--                  {'GONE'} when it is deleted or its row is not known; {'CHANGED'}, and nothing happens, when 'forgotten' says
--                  something else than before the row was read
--           'untie' name id
--                  forgets that a name leads to this id if there is no row of the id, or its row has another name: {'OK', 1}; {'OK', 0}
--           'unplace' id
--                  takes an id from the order that no row has: {'OK', 1}, or {'OK', 0}
--           'refeed' input output
--                  notes the output of an input, of which the output's row tells, if no other one is noted: {'OK', 1}, or {'OK', 0}
--           'delete' name id
--                  removes the collection if the name is this id's: {'OK'}. The commit of a deletion
--           'abandon' id
--                  gives an id up whose creation never ended: {'OK', 1}, or {'OK', 0} when it has a row
--           'close'
--                  deletes the database: refuses creations from now on, and moves all collections to the trash: {'OK'}
--           'collected' id ..
--                  takes deleted collections of which nothing is left from the trash: {'OK'}
--           'expire' ttl_s
--                  of a deleted database of which nothing is left, forgets after so long that it is closed: {'OK'}
--        {'LOST'}, and nothing happens, when the slot's version or a row that is needed was lost
--           'restoring' epoch verb ..    for a restoration: does this, unless the slot was restored in this epoch or a later one:
--                  then {'LATER'}
--        input: id of one that the function, whose output the collection is, has got. Then also {'GONE'} when there is no such
--        collection, and {'ATTACHED', output} when it has another output

local FIRST_COLLECTED = 2
local CHANGING = { create = true, add = true, update = true, delete = true }
local names_key, rows_key, order_key, trash_key, closed_key, functions_key, version_key, pending_key, epoch_key,
  forgotten_key = unpack(KEYS)
local verb = ARGV[1]

local function changed(id) redis.call('HSET', pending_key, id, next_version(version_key)) end

-- The output of an input, if there is one.
local function output_of(input)
  local output = redis.call('HGET', functions_key, input)
  local row = output and redis.call('HGET', rows_key, output)
  local made_by = row and (decoded(row) or {})['function']
  if type(made_by) ~= 'table' then return nil end
  for _, each in ipairs(made_by.inputs) do
    if each == input then return output end
  end
  return nil
end

-- The reply that says why `input` cannot be given the output `id`; nil when it can.
local function refusal_of(input, id)
  if not input then return nil end
  if redis.call('HEXISTS', rows_key, input) == 0 then return {'GONE'} end
  local output = output_of(input)
  if output and output ~= id then return {'ATTACHED', output} end
  return nil
end

local verbs = {}

function verbs.create(name, id, row, input)
  if redis.call('EXISTS', closed_key) == 1 then return {'CLOSED'} end
  local owner = redis.call('HGET', names_key, name)
  if owner == id then return {'OK'} end
  if owner then return {'TAKEN', owner} end
  if redis.call('SISMEMBER', trash_key, id) == 1 then return {'TRASHED'} end
  local refusal = refusal_of(input, id)
  if refusal then return refusal end
  if input then redis.call('HSET', functions_key, input, id) end
  local _, newest = unpack(redis.call('ZREVRANGE', order_key, 0, 0, 'WITHSCORES'))
  redis.call('HSET', names_key, name, id)
  redis.call('HSET', rows_key, id, row)
  redis.call('ZADD', order_key, (newest or 0) + 1, id)
  changed(id)
  return {'OK'}
end

function verbs.add(name, id, row, most, input)
  local is_new = redis.call('HEXISTS', names_key, name) == 0
  if is_new and redis.call('HLEN', names_key) >= tonumber(most) then return {'FULL'} end
  return verbs.create(name, id, row, input)
end

function verbs.update(id, generation, name, row, input)
  local present = redis.call('HGET', rows_key, id)
  if present == row then return {'OK'} end
  if not present then return {'STALE'} end
  local old = decoded(present)
  if not old or not tonumber(old.generation) then return {'LOST'} end
  if old.generation + 1 ~= tonumber(generation) then return {'STALE'} end
  local owner = redis.call('HGET', names_key, name)
  if owner and owner ~= id then return {'TAKEN', owner} end
  local refusal = refusal_of(input, id)
  if refusal then return refusal end
  if input then redis.call('HSET', functions_key, input, id) end
  redis.call('HDEL', names_key, old.name)
  redis.call('HSET', names_key, name, id)
  redis.call('HSET', rows_key, id, row)
  changed(id)
  return {'OK'}
end

function verbs.replace(name, id, row)
  local present = redis.call('HGET', rows_key, id)
  if not present then return {'OK'} end
  local old_name = (decoded(present) or {}).name
  if old_name and redis.call('HGET', names_key, old_name) == id then redis.call('HDEL', names_key, old_name) end
  redis.call('HSET', names_key, name, id)
  redis.call('HSET', rows_key, id, row)
  changed(id)
  return {'OK'}
end

function verbs.feed(input, output)
  redis.call('HSET', functions_key, input, output)
  return {'OK'}
end

-- With the epoch: the number begins anew where Redis was lost.
local function forgotten() return (redis.call('GET', epoch_key) or '0') .. ' ' .. (redis.call('GET', forgotten_key) or '0') end

function verbs.forgotten() return {forgotten()} end

function verbs.recover(seen, id, row)
  if seen ~= forgotten() then return {'CHANGED'} end
  if redis.call('EXISTS', closed_key) == 1 or redis.call('SISMEMBER', trash_key, id) == 1 then return {'GONE'} end
  local known = redis.call('HGET', rows_key, id) or row
  if known == '' then return {'GONE'} end
  local name = (decoded(known) or {}).name
  if not name then return {'GONE'} end
  local owner = redis.call('HGET', names_key, name)
  if owner and owner ~= id then return {'TAKEN', owner} end
  redis.call('HSET', names_key, name, id)
  redis.call('HSET', rows_key, id, known)
  if not redis.call('ZSCORE', order_key, id) then
    local _, newest = unpack(redis.call('ZREVRANGE', order_key, 0, 0, 'WITHSCORES'))
    redis.call('ZADD', order_key, (newest or 0) + 1, id)
  end
  return {'OK'}
end

function verbs.untie(name, id)
  if redis.call('HGET', names_key, name) ~= id then return {'OK', 0} end
  local row = redis.call('HGET', rows_key, id)
  if row and (decoded(row) or {name = name}).name == name then return {'OK', 0} end
  redis.call('HDEL', names_key, name)
  return {'OK', 1}
end

function verbs.unplace(id)
  if redis.call('HEXISTS', rows_key, id) == 1 then return {'OK', 0} end
  return {'OK', redis.call('ZREM', order_key, id)}
end

function verbs.refeed(input, output)
  if output_of(input) then return {'OK', 0} end
  local noted = redis.call('HGET', functions_key, input)
  redis.call('HSET', functions_key, input, output)
  if output_of(input) then return {'OK', 1} end
  if noted then redis.call('HSET', functions_key, input, noted) else redis.call('HDEL', functions_key, input) end
  return {'OK', 0}
end

function verbs.delete(name, id)
  if redis.call('HGET', names_key, name) == id then
    redis.call('SADD', trash_key, id)
    redis.call('HDEL', names_key, name)
    redis.call('HDEL', rows_key, id)
    redis.call('HDEL', functions_key, id)
    redis.call('ZREM', order_key, id)
    changed(id)
  end
  return {'OK'}
end

function verbs.abandon(id)
  if redis.call('HEXISTS', rows_key, id) == 1 then return {'OK', 0} end
  redis.call('SADD', trash_key, id)
  return {'OK', 1}
end

function verbs.close()
  redis.call('SET', closed_key, '1')
  for _, id in ipairs(redis.call('HVALS', names_key)) do redis.call('SADD', trash_key, id) end
  next_version(version_key)
  redis.call('DEL', names_key, rows_key, order_key, functions_key, pending_key) -- the end of the database says it for all of them
  return {'OK'}
end

function verbs.collected()
  redis.call('SREM', trash_key, unpack(ARGV, FIRST_COLLECTED))
  next_version(forgotten_key)
  return {'OK'}
end

function verbs.expire(ttl_s)
  redis.call('EXPIRE', closed_key, ttl_s)
  redis.call('EXPIRE', version_key, ttl_s)
  redis.call('EXPIRE', epoch_key, ttl_s)
  redis.call('EXPIRE', forgotten_key, ttl_s)
  return {'OK'}
end

function verbs.restoring(epoch, name, ...)
  if is_restored(epoch_key, epoch) then return {'LATER'} end
  return verbs[name](...)
end

if not verbs[verb] then return redis.error_reply('ERR unknown verb') end
if CHANGING[verb] and has_lost_version(version_key, rows_key) then return {'LOST'} end
return verbs[verb](unpack(ARGV, 2, 8))
