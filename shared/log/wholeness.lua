#!lua flags=no-writes,allow-oom
-- Follows the chain of a shard's stream: whether every entry behind a manifest is there and stands where it was written. Payloads
-- are not looked at: a damaged one is its readers' business, and leaves no gap.
--
-- KEYS   1  state_key    state hash of the collection
--        2  stream_key   stream of the shard
-- ARGV   1  shard        its number
--        2  covers       position below which the stream is not needed
--        3  after        id of the entry behind which to go on; '' to begin
--        4  chain        of that entry; '' where it has none
--
-- {'WHOLE'}            to the newest entry
-- {'MORE', id, chain}  so far; call again with these
-- {'BROKEN'}           an entry is missing, or is not what was written

local PAGE = 64
local VALUES_0_1_0, VALUES = 14, 24
local state_key, stream_key = KEYS[1], KEYS[2]
local shard, covers, after, chain = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]

local function position(id) return tonumber(string.match(id, '^%d+')) end

-- The id of the entry before, and the entry's chain ('' for one of version 0.1.0); nil when it is not what was written.
local function links(id, values)
  local _, p, _, f, _, e, _, l, _, n, _, c, _, t, _, r, _, b, _, x, _, h = unpack(values)
  if #values == VALUES_0_1_0 then return p, '' end
  if #values ~= VALUES then return nil end
  if redis.sha1hex(table.concat({b, p, id, f, e, l, n, c, t, r, x}, ' ')) ~= h then return nil end
  if chain ~= '' and b ~= chain then return nil end
  return p, h
end

local tail, tail_chain = unpack(redis.call('HMGET', state_key, 'tail:' .. shard, 'chain:' .. shard))
local start = after == '' and string.format('%d-0', covers) or '(' .. after
local page = redis.call('XRANGE', stream_key, start, '+', 'COUNT', PAGE)
for _, entry in ipairs(page) do
  local id, values = unpack(entry)
  local previous, own = links(id, values)
  if not previous then return {'BROKEN'} end
  if after == '' and position(previous) >= covers or after ~= '' and previous ~= after then return {'BROKEN'} end
  after, chain = id, own
end
if #page == PAGE then return {'MORE', after, chain} end
if after == '' then return position(tail or '0-0') < covers and {'WHOLE'} or {'BROKEN'} end
if after ~= tail or chain ~= '' and tail_chain and chain ~= tail_chain then return {'BROKEN'} end
return {'WHOLE'}
