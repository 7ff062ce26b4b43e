#!lua flags=allow-oom
-- Moves a shard's pointer from one manifest to the next. allow-oom: a full server is emptied by exactly this.
--
-- KEYS   1  state_key   state hash of the collection
-- ARGV   1  field       the pointer's field, 'm:<shard>'
--        2  expected    pointer that the new one replaces, as it is stored; '' for none
--        3  new         pointer to store
--        4  covers      position that the new one covers (exclusive)
--        5  epoch       in which the work on the new one began
--
-- 'OK'      moved, now or by an earlier run
-- 'LOST'    the pointer is another one, or the log was trimmed beyond what the manifest covers: the pointer was lost
-- 'EPOCH'   the collection was restored since: the pointer may be the same again, and what was lost must stay so
-- 'GONE'    no such collection, or deleted
-- 'AHEAD'   the manifest covers positions that were never handed out: appends to come would count as compacted

local state_key = KEYS[1]
local field, expected, new, covers, epoch = unpack(ARGV)
local shard = string.match(field, '%d+$')

local current, head, deleted, present_epoch, trimmed = unpack(
  redis.call('HMGET', state_key, field, 'head', 'deleted', 'epoch', 'trimmed:' .. shard))
if not head or deleted then return 'GONE' end
if current == new then return 'OK' end
if tonumber(present_epoch or 0) ~= tonumber(epoch) then return 'EPOCH' end
if (current or '') ~= expected or tonumber(trimmed or 0) > tonumber(covers) then return 'LOST' end
if not current and tonumber(trimmed or 0) > 1 then return 'LOST' end  -- what was trimmed is in a manifest that this one is not after
if tonumber(covers) > tonumber(head) then return 'AHEAD' end
redis.call('HSET', state_key, field, new)
return 'OK'
