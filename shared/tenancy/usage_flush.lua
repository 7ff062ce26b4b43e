#!lua
-- Takes the totals of a source for an hour (`shared.tenancy.usage`), each batch once, in the order of their sequences.
--
-- KEYS   1  usage_key  hash of the hour: 'use <source> <subject>' -> JSON of totals; 'seq <source>' -> sequence that was
--                      taken last; 'changes' -> number of batches that were taken
--        2  hours_key  set of the hours that have a hash
-- ARGV   1  hour
--        2  source
--        3  sequence   higher than those of all batches of the source before
--        4  field totals ..
-- returns the sequence that was taken last before; 0: none, so that earlier totals of the source are lost or rolled up

local FIRST_ENTRY = 4
local usage_key, hours_key = KEYS[1], KEYS[2]
local hour, source, sequence = ARGV[1], ARGV[2], ARGV[3]

local sequence_field = 'seq ' .. source
local before = tonumber(redis.call('HGET', usage_key, sequence_field) or 0) or 0 -- one that cannot be read is none: all is sent again
if before >= tonumber(sequence) then return before end

for at = FIRST_ENTRY, #ARGV, 2 do
  redis.call('HSET', usage_key, ARGV[at], ARGV[at + 1])
end
redis.call('HSET', usage_key, sequence_field, sequence)
local changes = redis.call('HGET', usage_key, 'changes')
if changes and not changes:match('^%d+$') then redis.call('HDEL', usage_key, 'changes') end
redis.call('HINCRBY', usage_key, 'changes', 1)
redis.call('SADD', hours_key, hour)
return before
