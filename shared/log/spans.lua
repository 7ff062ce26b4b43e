#!lua flags=no-writes,allow-oom
-- The appends that entries of a shard's stream belong to, without their payloads.
--
-- KEYS   1  stream_key   stream of the shard
-- ARGV   1  after        id of the entry behind which to begin
--        2  count        entries at most
--
-- {{id, first, end, operations}, ..}   of each entry: its id, the positions of its append, operations in it

local stream_key = KEYS[1]
local after, count = ARGV[1], ARGV[2]

local found = {}
for i, entry in ipairs(redis.call('XRANGE', stream_key, '(' .. after, '+', 'COUNT', count)) do
  local id, values = unpack(entry)
  local fields = {}
  for at = 1, #values, 2 do fields[values[at]] = values[at + 1] end
  found[i] = {id, fields.f, fields.e, fields.n}
end
return found
