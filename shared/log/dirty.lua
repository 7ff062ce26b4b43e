#!lua flags=allow-oom
-- Marks shards as written. allow-oom: a full server is emptied by what follows from the marks.
--
-- KEYS   1 dirty: zset of shard by the time of its oldest mark, in ms
-- ARGV   the shards

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
for i = 1, #ARGV do redis.call('ZADD', KEYS[1], 'NX', now, ARGV[i]) end
return #ARGV
