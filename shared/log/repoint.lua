#!lua flags=allow-oom
-- Gives a shard the pointer back that it lost: its log was trimmed beyond what the present one covers. allow-oom: it is small.
--
-- KEYS   1  state_key   state hash of the collection
-- ARGV   1  shard       its number
--        2  new         pointer to store
--        3  covers      position that it covers (exclusive)
--        4  epoch       in which it was looked for
--
-- 'OK'      stored
-- 'WHOLE'   the pointer covers what was trimmed
-- 'LOST'    no such collection, or of another epoch, or this pointer does not cover what was trimmed either

local state_key = KEYS[1]
local shard, new, covers, epoch = unpack(ARGV)

local current, trimmed, head, present_epoch = unpack(
  redis.call('HMGET', state_key, 'm:' .. shard, 'trimmed:' .. shard, 'head', 'epoch'))
trimmed = tonumber(trimmed or 0)
local can_be_read, pointer = pcall(cjson.decode, current or 'null')
if can_be_read and type(pointer) == 'table' and (tonumber(pointer.covers) or 0) >= trimmed then return 'WHOLE' end
if not head or tonumber(present_epoch or 0) ~= tonumber(epoch) or tonumber(covers) < trimmed then return 'LOST' end
redis.call('HSET', state_key, 'm:' .. shard, new)
return 'OK'
