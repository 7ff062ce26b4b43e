#!lua flags=allow-oom
-- Moves a shard's pointer from one manifest to the next. allow-oom: a full server is emptied by exactly this.
--
-- KEYS   1 state hash
-- ARGV   1 pointer field   2 expected pointer or ''   3 new pointer   4 position the new one covers (exclusive)
--
-- 'OK'      moved, now or by an earlier run
-- 'LOST'    the pointer is another one
-- 'GONE'    no such collection, or deleted
-- 'AHEAD'   the manifest covers positions that were never handed out: appends to come would count as compacted

local state = redis.call('HMGET', KEYS[1], ARGV[1], 'head', 'deleted')
if not state[2] or state[3] then return 'GONE' end
local current = state[1] or ''
if current == ARGV[3] then return 'OK' end
if current ~= ARGV[2] then return 'LOST' end
if tonumber(ARGV[4]) > tonumber(state[2]) then return 'AHEAD' end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 'OK'
