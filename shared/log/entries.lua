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
--   t   when the append was made, in ms since the epoch by this server's clock; a copy has that of its original
--   r   request id of the append; '' for a copy
--   b   `h` of the entry before it; '' for the first one
--   x   checksum of the payload, made by the process that encoded it: xxh3-128 in hex
--   h   the chain: SHA-1 in hex of 'b p <id> f e l n c t r x', a space between each
--   d   payload
--
-- Entries of version 0.1.0 have p f e l n c d alone. They are read by `verified_entry` (shared/log/verification.py), by the places
-- of `n` and `d` in append.lua, of `d` in read.lua, and by name in trim.lua.

-- Whether an entry, as XRANGE gives it, is what was written, as far as its own checksum tells: nothing is said of the payload, nor
-- of an entry of version 0.1.0.
local function has_own_chain(id, values)
  local VALUES_0_1_0 = 14
  if #values == VALUES_0_1_0 then return true end
  local p, f, e, l, n, c, t, r, b, x, h =
    values[2], values[4], values[6], values[8], values[10], values[12], values[14], values[16], values[18], values[20], values[22]
  if not h then return false end
  return redis.sha1hex(b .. ' ' .. p .. ' ' .. id .. ' ' .. f .. ' ' .. e .. ' ' .. l .. ' ' .. n .. ' ' .. c .. ' ' .. t .. ' '
    .. r .. ' ' .. x) == h
end

-- What the state says of a shard's stream: id and chain of its newest entry, operations and payload bytes that were added in
-- total.
local function stream_of(state_key, shard)
  local tail, ops, bytes, chain = unpack(
    redis.call('HMGET', state_key, 'tail:' .. shard, 'ops:' .. shard, 'bytes:' .. shard, 'chain:' .. shard))
  return {shard = shard, tail = tail or '0-0', ops = tonumber(ops or 0), bytes = tonumber(bytes or 0), chain = chain or ''}
end

-- Whether the state has lost something of what it says of a stream that has entries, or it cannot be read: an entry that is added now
-- would not continue
-- the chain. The log service gives it back (rejoin.lua).
local function has_lost_stream(state_key, shard, stream_key)
  local tail, ops, bytes, chain = unpack(
    redis.call('HMGET', state_key, 'tail:' .. shard, 'ops:' .. shard, 'bytes:' .. shard, 'chain:' .. shard))
  if tail and ops and bytes and chain then
    local can_be_read = tail:match('^%d+%-%d+$') and ops:match('^%d+$') and bytes:match('^%d+$') and chain:match('^%x*$')
    return not (can_be_read and (#chain == 40 or #chain == 0))
  end
  local newest = unpack(redis.call('XREVRANGE', stream_key, '+', '-', 'COUNT', 1))
  if not newest then return (tail or ops or bytes or chain) and not (tail and ops and bytes) or false end
  local VALUES_0_1_0 = 14
  return not (tail and ops and bytes) or #newest[2] ~= VALUES_0_1_0
end

-- Adds an entry at the end of `stream`, whose key is `key`. `first`, `end_position`, `last`, `time_ms`, `request` and `checksum`
-- are the text of f, e, l, t, r and x; `ops` (operations) is a number.
local function add_entry(key, stream, id, first, end_position, last, ops, time_ms, request, checksum, payload)
  stream.ops, stream.bytes = stream.ops + ops, stream.bytes + #payload
  local count, totals = string.format('%d', ops), string.format('%d %d', stream.ops, stream.bytes)
  local chain = redis.sha1hex(
    stream.chain .. ' ' .. stream.tail .. ' ' .. id .. ' ' .. first .. ' ' .. end_position .. ' ' .. last .. ' ' .. count .. ' '
      .. totals .. ' ' .. time_ms .. ' ' .. request .. ' ' .. checksum)
  redis.call('XADD', key, id, 'p', stream.tail, 'f', first, 'e', end_position, 'l', last, 'n', count, 'c', totals,
             't', time_ms, 'r', request, 'b', stream.chain, 'x', checksum, 'h', chain, 'd', payload)
  stream.tail, stream.chain = id, chain
end

-- Adds to a list of fields and values, for HSET, what the state says of the stream now.
local function note_stream(fields, stream)
  local shard, at = stream.shard, #fields
  fields[at + 1], fields[at + 2] = 'tail:' .. shard, stream.tail
  fields[at + 3], fields[at + 4] = 'ops:' .. shard, string.format('%d', stream.ops)
  fields[at + 5], fields[at + 6] = 'bytes:' .. shard, string.format('%d', stream.bytes)
  fields[at + 7], fields[at + 8] = 'chain:' .. shard, stream.chain
end
