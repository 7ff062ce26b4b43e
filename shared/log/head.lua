#!lua flags=no-writes,allow-oom
-- The positions as of which a collection can be read.
--
-- KEYS   1  state_key   state hash of the collection
-- ARGV   1  nothing: there are no arguments
--
-- {head, floor}   the next position, and the lowest one that a reader may still hold
-- nil             no such collection, or deleted, or one of the two is no number

local state_key = KEYS[1]

local head, floor, deleted = unpack(redis.call('HMGET', state_key, 'head', 'floor', 'deleted'))
if not head or deleted then return false end
if not string.match(head, '^%d+$') or not string.match(floor or '0', '^%d+$') then return false end
return {tonumber(head), tonumber(floor or 0)}
