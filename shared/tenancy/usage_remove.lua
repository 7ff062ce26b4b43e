#!lua flags=allow-oom
-- Removes the hash of an hour that was rolled up, unless it has changed since it was read.
--
-- KEYS   1  usage_key  hash of the hour
--        2  hours_key  set of the hours that have a hash
-- ARGV   1  hour
--        2  changes    number of batches that had been taken when it was read
-- returns 1 when it was removed, else 0

local usage_key, hours_key = KEYS[1], KEYS[2]
local hour, changes = ARGV[1], ARGV[2]

if (redis.call('HGET', usage_key, 'changes') or '0') ~= changes then return 0 end
redis.call('UNLINK', usage_key)
redis.call('SREM', hours_key, hour)
return 1
