#!lua flags=allow-oom
-- The life of a collection's state hash beside its log.
--
-- KEYS   1 state hash
-- ARGV   'create' field value ..       1; the same fields again do no harm, for an id is used by one creator only
--        'restore' head field value .. creates it where it is missing, then raises `head` to at least this: the head now
--        'head' n                      raises `head` to at least n: the head now, or 0 when there is no such collection
--        'generation' n                raises the generation to at least n; 1, or 0 when there is no such collection
--        'want' n                      asks for n shards at least; 1, or 0 when there is no such collection
--        'delete'                      marks it deleted; 1, or 0 when there is no such collection
--
-- `floor` is where the head was raised to: what was read as of a position below it may be lost.

local verb = ARGV[1]
local head = redis.call('HGET', KEYS[1], 'head')
if verb == 'create' then
  if not head then redis.call('HSET', KEYS[1], unpack(ARGV, 2)) end
  return 1
elseif verb == 'restore' then
  if not head then redis.call('HSET', KEYS[1], 'head', ARGV[2], 'floor', ARGV[2], unpack(ARGV, 3)) end
  if head and tonumber(head) < tonumber(ARGV[2]) then redis.call('HSET', KEYS[1], 'head', ARGV[2], 'floor', ARGV[2]) end
  return tonumber(redis.call('HGET', KEYS[1], 'head'))
end
if not head then return 0 end
if verb == 'head' then
  if tonumber(head) < tonumber(ARGV[2]) then redis.call('HSET', KEYS[1], 'head', ARGV[2], 'floor', ARGV[2]) end
  return tonumber(redis.call('HGET', KEYS[1], 'head'))
elseif verb == 'generation' then
  if tonumber(redis.call('HGET', KEYS[1], 'gen')) < tonumber(ARGV[2]) then redis.call('HSET', KEYS[1], 'gen', ARGV[2]) end
  return 1
elseif verb == 'want' then
  if tonumber(redis.call('HGET', KEYS[1], 'wanted') or 0) < tonumber(ARGV[2]) then redis.call('HSET', KEYS[1], 'wanted', ARGV[2]) end
  return 1
elseif verb == 'delete' then
  redis.call('HSET', KEYS[1], 'deleted', '1')
  return 1
end
return redis.error_reply('ERR unknown verb')
