#!lua
-- Fixes a collection's dimension unless it is fixed.
--
-- KEYS   1  state_key   state hash of the collection
-- ARGV   1  dimension   width of the collection's embeddings, if nothing has fixed it before
--
-- the collection's dimension; 0 when the collection is gone

local state_key = KEYS[1]
local dimension = ARGV[1]

local head, fixed, deleted = unpack(redis.call('HMGET', state_key, 'head', 'dim', 'deleted'))
if not head or deleted then return 0 end
if fixed then return tonumber(fixed) end
redis.call('HSET', state_key, 'dim', dimension)
return tonumber(dimension)
