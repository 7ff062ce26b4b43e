#!lua flags=allow-oom
-- Marks shards as written. allow-oom: a full server is emptied by what follows from the marks.
--
-- KEYS   1    dirty_key   zset of shards by the time of their oldest mark, in ms
-- ARGV   1..  shards      '<collection id>:<shard>' each
--
-- number of shards that were given

local dirty_key, shards = KEYS[1], ARGV

local seconds, microseconds = unpack(redis.call('TIME'))
local now_ms = seconds * 1000 + math.floor(microseconds / 1000)
for _, shard in ipairs(shards) do redis.call('ZADD', dirty_key, 'NX', now_ms, shard) end
return #shards
