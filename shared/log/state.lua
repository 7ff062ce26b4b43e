#!lua flags=allow-oom
-- The life of a collection's state hash beside its log. allow-oom: what is small, or leads to less, is never refused.
-- But a client's creation runs without that flag (shared/log/lifecycle.py).
--
-- KEYS   1  state_key   state hash of the collection
--        2.. streams     'restore': those of its shards
-- ARGV   1  verb        then its arguments:
--           'create' field value ..         creates it: 1. The same again does no harm, for an id is used by one creator only
--           'restore' head epoch field value ..
--                                           creates it, without streams or fields that outlived a lost one, or puts these in place of
--                                           what an earlier epoch has left, then raises its head and its epoch to at least these:
--                                           the head now
--           'head' least epoch              raises its head and its epoch to at least these: the head now
--           'fill' head epoch field value ..
--                                           sets those of the fields that are missing, then the same
--           'refill' head epoch field value ..
--                                           the same in an open cluster: -1, and nothing happens, when the collection was restored
--                                           in a later epoch
--           'generation' least              raises its generation to at least this: 1
--           'want' shards                   asks for so many shards at least: 1
--           'delete'                        marks it deleted: 1
--           'drop' field value ..           removes those of the fields that have this value: how many
--           'clear' field ..                removes what is left of it: 1; 0, and nothing happens, while it has all of these fields
--
-- 'head', 'generation', 'want' and 'delete' return 0 when there is no such collection.
--
-- `floor` is where the head was raised to: what was read as of a position below it may be lost.

local FIRST_FIELD_CREATE, FIRST_FIELD_RESTORE = 2, 4
local state_key = KEYS[1]
local verb, argument, argument_epoch = unpack(ARGV, 1, 3)

local head, generation, wanted, epoch = unpack(redis.call('HMGET', state_key, 'head', 'gen', 'wanted', 'epoch'))

-- A field that is missing, or no number any more, counts as 0.
local function number(field) return field and tonumber(field) or 0 end

local function raise(least, least_epoch)
  if number(epoch) < tonumber(least_epoch) then redis.call('HSET', state_key, 'epoch', least_epoch) end
  if number(head) < tonumber(least) then
    redis.call('HSET', state_key, 'head', least, 'floor', least)
    head = least
  end
  return tonumber(head)
end

local verbs = {}

function verbs.create()
  if not head then redis.call('HSET', state_key, unpack(ARGV, FIRST_FIELD_CREATE)) end
  return 1
end

function verbs.restore(least, least_epoch)
  if head and tonumber(head) then
    -- What is there may be from before: Redis can have gone back to a moment within a creation or an earlier restoration. What the
    -- bucket has replaces it, but for what a restoration as late as this one has left.
    if number(epoch) < tonumber(least_epoch) then
      for at = FIRST_FIELD_RESTORE, #ARGV, 2 do
        local field, value = ARGV[at], ARGV[at + 1]
        if string.sub(field, 1, 8) ~= 'backlog_' then redis.call('HSET', state_key, field, value) end
      end
    end
    return raise(least, least_epoch)
  end
  -- What outlived the state is in no chain that the new one could continue. Dropped in this step: a log service that slept would
  -- drop what another one has restored, and what was appended since.
  redis.call('DEL', unpack(KEYS))
  redis.call('HSET', state_key, 'head', least, 'floor', least, 'epoch', least_epoch, unpack(ARGV, FIRST_FIELD_RESTORE))
  return tonumber(least)
end

function verbs.fill(least, least_epoch)
  for at = FIRST_FIELD_RESTORE, #ARGV, 2 do redis.call('HSETNX', state_key, unpack(ARGV, at, at + 1)) end
  head = head or '0'
  return raise(least, least_epoch)
end

function verbs.refill(least, least_epoch)
  if tonumber(epoch or 0) > tonumber(least_epoch) then return -1 end
  return verbs.fill(least, least_epoch)
end

function verbs.head(least, least_epoch) return head and tonumber(head) and raise(least, least_epoch) or 0 end

function verbs.generation(least)
  if not head then return 0 end
  if number(generation) < tonumber(least) then redis.call('HSET', state_key, 'gen', least) end
  return 1
end

function verbs.want(shards)
  if not head then return 0 end
  if number(wanted) < tonumber(shards) then redis.call('HSET', state_key, 'wanted', shards) end
  return 1
end

function verbs.delete()
  if not head then return 0 end
  redis.call('HSET', state_key, 'deleted', '1')
  return 1
end

function verbs.drop()
  local FIRST_FIELD, dropped = 2, 0
  for at = FIRST_FIELD, #ARGV, 2 do
    local field, value = ARGV[at], ARGV[at + 1]
    if redis.call('HGET', state_key, field) == value then dropped = dropped + redis.call('HDEL', state_key, field) end
  end
  return dropped
end

function verbs.clear()
  local FIRST_FIELD = 2
  for at = FIRST_FIELD, #ARGV do
    if redis.call('HEXISTS', state_key, ARGV[at]) == 0 then
      redis.call('DEL', state_key)
      return 1
    end
  end
  return 0
end

if not verbs[verb] then return redis.error_reply('ERR unknown verb') end
return verbs[verb](argument, argument_epoch)
