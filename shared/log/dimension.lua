#!lua
-- Fixes a collection's dimension unless it is fixed.
--
-- KEYS   1 state hash
-- ARGV   1 dimension
--
-- the collection's dimension, or 0 when it is gone

local state = redis.call('HMGET', KEYS[1], 'head', 'dim', 'deleted')
if not state[1] or state[3] then return 0 end
if state[2] then return tonumber(state[2]) end
redis.call('HSET', KEYS[1], 'dim', ARGV[1])
return tonumber(ARGV[1])
