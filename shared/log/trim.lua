#!lua flags=allow-oom
-- Drops the entries of a shard's stream that a committed manifest covers. allow-oom: this is what empties a full server.
--
-- KEYS   1  state_key    state hash of the collection
--        2  stream_key   stream of the shard
--        3  substitutes_key   substitutes for damaged entries (substitute.lua)
-- ARGV   1  shard        its number
--        2  version      of the manifest
--        3  hash         of the manifest
--        4  covers       position that the manifest covers (exclusive)
--        5  epoch        in which the caller read the pointer
--
-- n >= 0   entries dropped; 0 also when the manifest is not committed, or the collection was restored in a later epoch, or what the
--          state says of the stream was lost or cannot be read: it is made again of these entries first
-- -1       the position lies inside an append, whose other half the manifest can't have: never trimmed
--
-- While a rebuild is still to copy the stream from `copied:<shard>` on, it is kept from there.
-- A version is committed at most once, so an older version than the committed one is an ancestor of it.
-- The newest dropped entry holds the totals up to itself (`c`), so the counters follow without reading the others.

local state_key, stream_key, substitutes_key = KEYS[1], KEYS[2], KEYS[3]
local shard, version, hash, covers, epoch = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])

local pointer, trimmed_ops, trimmed_bytes, trimmed, kept_from, backlog_ops, backlog_bytes, present_epoch = unpack(
  redis.call('HMGET', state_key, 'm:' .. shard, 'trimmed_ops:' .. shard, 'trimmed_bytes:' .. shard, 'trimmed:' .. shard,
             'copied:' .. shard, 'backlog_ops', 'backlog_bytes', 'epoch'))
if not pointer or (tonumber(present_epoch or 0) or math.huge) > epoch then return 0 end
local can_be_read, committed = pcall(cjson.decode, pointer)
if not (can_be_read and type(committed) == 'table' and committed.version and committed.covers) then return 0 end
for _, number in ipairs({backlog_ops or '?', backlog_bytes or '?', trimmed_ops or 0, trimmed_bytes or 0, trimmed or 0, kept_from or 0}) do
  if not tonumber(number) then return 0 end
end
local is_committed = version == committed.version and hash == committed.hash
local is_ancestor = version < committed.version and covers <= committed.covers
if not is_committed and not is_ancestor then return 0 end

local keep_from = math.min(covers, tonumber(kept_from or covers))

-- The fields of an entry by name (entries.lua).
local function fields_of(entry)
  local _, pairs_in_order = unpack(entry)
  local fields = {}
  for i = 1, #pairs_in_order, 2 do fields[pairs_in_order[i]] = pairs_in_order[i + 1] end
  return fields
end

-- The end of its append, and the totals up to it, of the newest entry to be dropped: its substitute's where there is one.
local function what_ends(entry)
  local substitute = redis.call('HGET', substitutes_key, shard .. ':' .. entry[1])
  if not substitute then
    local fields = fields_of(entry)
    return fields.e, fields.c
  end
  local E, C = 3, 6  -- the fields in their order (entries.lua)
  local texts = cjson.decode(substitute)
  return texts[E], texts[C]
end

-- Drops the substitutes for entries below `keep_from`.
local function drop_substitutes()
  for _, name in ipairs(redis.call('HKEYS', substitutes_key)) do
    local of_shard, position = string.match(name, '^(%d+):(%d+)-')
    if of_shard == shard and tonumber(position) < keep_from then redis.call('HDEL', substitutes_key, name) end
  end
end

-- The totals of what was trimmed before, where the state has lost them: those before the oldest entry.
local function totals_before(oldest)
  local fields = fields_of(oldest)
  local ops, bytes = string.match(fields.c or '', '^(%d+) (%d+)$')
  return ops and ops - tonumber(fields.n) or 0, bytes and bytes - #fields.d or 0
end

local dropped = 0
local newest = unpack(redis.call('XREVRANGE', stream_key, string.format('%d-0', keep_from - 1), '-', 'COUNT', 1))
if newest then
  local end_position, totals = what_ends(newest)
  if tonumber(end_position) > keep_from then return -1 end
  local ops, bytes = string.match(totals, '^(%d+) (%d+)$')
  if not (trimmed_ops and trimmed_bytes) then
    trimmed_ops, trimmed_bytes = totals_before(unpack(redis.call('XRANGE', stream_key, '-', '+', 'COUNT', 1)))
  end
  local left_ops = tonumber(backlog_ops) - (ops - tonumber(trimmed_ops or 0))
  local left_bytes = tonumber(backlog_bytes) - (bytes - tonumber(trimmed_bytes or 0))
  dropped = redis.call('XTRIM', stream_key, 'MINID', string.format('%d-0', keep_from))
  redis.call('HSET', state_key, 'trimmed_ops:' .. shard, ops, 'trimmed_bytes:' .. shard, bytes,
             'backlog_ops', string.format('%d', left_ops), 'backlog_bytes', string.format('%d', left_bytes))
end
drop_substitutes()
if keep_from > tonumber(trimmed or 0) then redis.call('HSET', state_key, 'trimmed:' .. shard, string.format('%d', keep_from)) end
return dropped
