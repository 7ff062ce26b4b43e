-- The entries of a shard's stream, for the scripts that add some (`uses=["entries"]` puts this text into them).
--
-- An entry's id is '<position of its first operation>-0'. Its fields, always in this order:
--
--   p   id of the entry before it in the stream; '0-0' for the first one
--   f   first position of the whole append
--   e   end position (exclusive) of the whole append
--   l   '1' on the last entry of the append in this stream, else '0'
--   n   operations in the entry
--   c   '<operations> <bytes>' added to this stream in total, this entry included
--   d   payload
--
-- They are read by `parse_entry` (shared/log/state.py), and by name or place in append.lua and trim.lua.

-- What the state says of a shard's stream: id of its newest entry, operations and payload bytes that were added in total.
local function stream_of(state_key, shard)
  local tail, ops, bytes = unpack(redis.call('HMGET', state_key, 'tail:' .. shard, 'ops:' .. shard, 'bytes:' .. shard))
  return {shard = shard, tail = tail or '0-0', ops = tonumber(ops or 0), bytes = tonumber(bytes or 0)}
end

-- Adds an entry at the end of `stream`, whose key is `key`. `first` and `last` are text, `ops` (operations) a number.
local function add_entry(key, stream, id, first, end_position, last, ops, payload)
  stream.ops, stream.bytes = stream.ops + ops, stream.bytes + #payload
  redis.call('XADD', key, id, 'p', stream.tail, 'f', first, 'e', end_position, 'l', last, 'n', ops,
             'c', string.format('%d %d', stream.ops, stream.bytes), 'd', payload)
  stream.tail = id
end

-- Adds to a list of fields and values, for HSET, what the state says of the stream now.
local function note_stream(fields, stream)
  local shard, at = stream.shard, #fields
  fields[at + 1], fields[at + 2] = 'tail:' .. shard, stream.tail
  fields[at + 3], fields[at + 4] = 'ops:' .. shard, string.format('%d', stream.ops)
  fields[at + 5], fields[at + 6] = 'bytes:' .. shard, string.format('%d', stream.bytes)
end
