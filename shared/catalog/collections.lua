#!lua flags=allow-oom
-- The collections of one database. A row is JSON; `generation` in it counts its changes.
--
-- KEYS   1 names: name -> id   2 rows: id -> row   3 order: id by time of creation   4 trash: ids to be marked and collected
--        5 closed: set once the database is deleted   6 functions: id of an input -> id of the output that it was given last
-- ARGV   'create' name id row [input]    {'OK'}, also when it was this id that took the name; {'CLOSED'}; {'TRASHED'} when
--                                        the id was given up as an orphan; {'TAKEN', id of the one that has the name};
--                                        with the input of a function, whose output this is: {'ATTACHED', id} when it has an
--                                        output, {'GONE'} when there is none of this id
--        'update' id generation new-name row [input]    {'OK'}; {'STALE'} unless the row has the generation before this one
--                                        (or this very row already); {'TAKEN', id}; with a new input: {'ATTACHED', id}, {'GONE'}
--        'feed' input output             for a restoration. An entry counts only as long as the output's row names the input
--        'delete' name id                removes it if it still has this id: the commit of a deletion. {'OK'}
--        'abandon' id                    gives an id up whose creation never ended: {'OK', 1}, or {'OK', 0} when it has a row
--        'close'                         deletes the database: refuses creations from now on, moves all collections to the trash
--        'collected' id ..               nothing is left of the deleted collections
--        'expire' seconds                a deleted database of which nothing is left: forget that it is closed after so long

local verb = ARGV[1]

local function remove(id, name)
  redis.call('SADD', KEYS[4], id)
  redis.call('HDEL', KEYS[1], name)
  redis.call('HDEL', KEYS[2], id)
  redis.call('HDEL', KEYS[6], id)
  redis.call('ZREM', KEYS[3], id)
end

-- The output of an input: what its row says counts.
local function output_of(input)
  local output = redis.call('HGET', KEYS[6], input)
  local row = output and redis.call('HGET', KEYS[2], output)
  local made_by = row and cjson.decode(row)['function']
  if type(made_by) ~= 'table' then return nil end
  for _, one in ipairs(made_by.inputs) do
    if one == input then return output end
  end
  return nil
end

-- Why `input` cannot be given the output `id`.
local function refused(input, id)
  if not input then return nil end
  if redis.call('HEXISTS', KEYS[2], input) == 0 then return {'GONE'} end
  local output = output_of(input)
  if output and output ~= id then return {'ATTACHED', output} end
  return nil
end

if verb == 'create' then
  if redis.call('EXISTS', KEYS[5]) == 1 then return {'CLOSED'} end
  local id = redis.call('HGET', KEYS[1], ARGV[2])
  if id then return id == ARGV[3] and {'OK'} or {'TAKEN', id} end
  if redis.call('SISMEMBER', KEYS[4], ARGV[3]) == 1 then return {'TRASHED'} end
  local refusal = refused(ARGV[5], ARGV[3])
  if refusal then return refusal end
  if ARGV[5] then redis.call('HSET', KEYS[6], ARGV[5], ARGV[3]) end
  local newest = redis.call('ZREVRANGE', KEYS[3], 0, 0, 'WITHSCORES')
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
  redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
  redis.call('ZADD', KEYS[3], (newest[2] or 0) + 1, ARGV[3])
  return {'OK'}
elseif verb == 'update' then
  local id, row = ARGV[2], redis.call('HGET', KEYS[2], ARGV[2])
  if row == ARGV[5] then return {'OK'} end
  if not row then return {'STALE'} end
  local old = cjson.decode(row)
  if old.generation + 1 ~= tonumber(ARGV[3]) then return {'STALE'} end
  local owner = redis.call('HGET', KEYS[1], ARGV[4])
  if owner and owner ~= id then return {'TAKEN', owner} end
  local refusal = refused(ARGV[6], id)
  if refusal then return refusal end
  if ARGV[6] then redis.call('HSET', KEYS[6], ARGV[6], id) end
  redis.call('HDEL', KEYS[1], old.name)
  redis.call('HSET', KEYS[1], ARGV[4], id)
  redis.call('HSET', KEYS[2], id, ARGV[5])
  return {'OK'}
elseif verb == 'delete' then
  if redis.call('HGET', KEYS[1], ARGV[2]) == ARGV[3] then remove(ARGV[3], ARGV[2]) end
  return {'OK'}
elseif verb == 'feed' then
  redis.call('HSET', KEYS[6], ARGV[2], ARGV[3])
  return {'OK'}
elseif verb == 'abandon' then
  if redis.call('HEXISTS', KEYS[2], ARGV[2]) == 1 then return {'OK', 0} end
  redis.call('SADD', KEYS[4], ARGV[2])
  return {'OK', 1}
elseif verb == 'close' then
  redis.call('SET', KEYS[5], '1')
  local all = redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do redis.call('SADD', KEYS[4], all[i + 1]) end
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[6])
  return {'OK'}
elseif verb == 'collected' then
  redis.call('SREM', KEYS[4], unpack(ARGV, 2))
  return {'OK'}
elseif verb == 'expire' then
  redis.call('EXPIRE', KEYS[5], ARGV[2])
  return {'OK'}
end
return redis.error_reply('ERR unknown verb')
