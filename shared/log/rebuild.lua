#!lua flags=allow-oom
-- How a collection gets another layout of shards (docs/design/2026-11-21-rebuild.md). A layout is text, '<first shard> <shards>'.
-- allow-oom: what is not copied cannot be trimmed.
--
-- KEYS   1    state_key   state hash of the collection
--        2..  streams     those of the next layout's shards, then those of the present one's
-- ARGV   1    verb
--        2    epoch       of the state from which the caller began; '' for any. Then the verb's arguments:
--           'begin' present next
--                  names the layout that is to follow `present`: {'OK', the one that is being built now}
--           'initialize' next copied shards, then shard start .., then shard pointer ..
--                  gives the new shards the pointers of their initial manifests. `shards` is the number of present shards, each with
--                  the position from which its stream is in none of these manifests; `copied` is the lowest of these
--           'copy' next copied reach entries ..
--                  adds to the new streams what the log has at [copied, reach)
--           'built' next shards
--                  so many of the new shards have segments of their own
--           'stop' next ms
--                  stops appends for so long: {'OK', head}
--           'switch' next copied head entries ..
--                  adds to the new streams what the log has at [copied, head), and makes the next layout the present one
--           'abandon'
--                  forgets the layout that is being built
--           'restore' layout epoch position dimension, then shard pointer ..
--                  drops the streams, whatever they hold, and makes this layout the present one, in this epoch, with manifests that
--                  are of one moment at this position; a pointer is '' where there is none. `dimension` is that of the manifests'
--                  vectors, which replaces the state's: Redis may be older than they are; '' where they do not say any
--        entries: nine arguments each: shard, id, first and end position of its append, '1' or '0' (whether it is the last of the
--        append in the stream), operations, time of the append (ms), checksum of the payload, payload. Those of a shard stand
--        together
--
-- {'OK'}     done, now or by an earlier run
-- {'GONE'}   no such collection, or deleted
-- {'LOST'}   another process was faster, or the collection was restored since: read again

local FIRST_STREAM = 2
local state_key = KEYS[1]
local verb, epoch = ARGV[1], ARGV[2]

local head, deleted, layout, next_layout, copied, wanted, backlog_ops, backlog_bytes, ops_before, versions_before,
  present_epoch = unpack(
  redis.call('HMGET', state_key, 'head', 'deleted', 'layout', 'next', 'copied', 'wanted', 'backlog_ops', 'backlog_bytes',
             'ops_before', 'versions_before', 'epoch'))
if not head or deleted then return {'GONE'} end
if epoch ~= '' and tonumber(epoch) ~= tonumber(present_epoch or 0) then return {'LOST'} end
backlog_ops, backlog_bytes = tonumber(backlog_ops), tonumber(backlog_bytes)

local function get(name, shard) return tonumber(redis.call('HGET', state_key, name .. ':' .. shard) or 0) end
local function set(name, value) redis.call('HSET', state_key, name, string.format('%d', value)) end
-- Nothing of the log is before what the manifest covers: a pointer that is lost shows by that.
local function set_pointer(shard, pointer)
  local covers = string.format('%d', cjson.decode(pointer).covers)
  redis.call('HSET', state_key, 'm:' .. shard, pointer, 'trimmed:' .. shard, covers)
end

local function now_ms()
  local seconds, microseconds = unpack(redis.call('TIME'))
  return seconds * 1000 + math.floor(microseconds / 1000)
end

-- The numbers of a layout's shards, as text.
local function shards_of(some_layout)
  local first, count = string.match(some_layout, '^(%d+) (%d+)$')
  local found = {}
  for i = 1, tonumber(count) do found[i] = string.format('%d', first + i - 1) end
  return found
end

local function set_backlog()
  set('backlog_ops', backlog_ops)
  set('backlog_bytes', backlog_bytes)
end

-- Drops the streams and fields of a layout; the keys of its streams begin at `stream_at`. Returns the operations that these ever
-- had.
local function drop(some_layout, stream_at)
  local ever = 0
  for i, shard in ipairs(shards_of(some_layout)) do
    local ops, bytes = get('ops', shard), get('bytes', shard)
    ever = ever + ops
    backlog_ops = backlog_ops - (ops - get('trimmed_ops', shard))
    backlog_bytes = backlog_bytes - (bytes - get('trimmed_bytes', shard))
    redis.call('DEL', KEYS[stream_at + i - 1])
    local fields = {}
    for _, name in ipairs({'tail', 'm', 'ops', 'bytes', 'trimmed_ops', 'trimmed_bytes', 'trimmed', 'copied', 'chain', 'cut'}) do
      fields[#fields + 1] = name .. ':' .. shard
    end
    redis.call('HDEL', state_key, unpack(fields))
  end
  set_backlog()
  return ever
end

-- Forgets what a rebuild noted; the shards' own fields stay.
local function forget_rebuild()
  redis.call('HDEL', state_key, 'next', 'copied', 'built', 'fence')
  for _, shard in ipairs(shards_of(layout)) do redis.call('HDEL', state_key, 'copied:' .. shard) end
end

-- Adds the entries, which begin at `entry_at` in ARGV, to the streams of the next layout.
local PER_ENTRY = 9
local function add_entries(entry_at)
  local first_shard = tonumber(string.match(next_layout, '^%d+'))
  local stream
  for at = entry_at, #ARGV, PER_ENTRY do
    local shard, id, first, end_position, last, ops, time_ms, checksum, payload = unpack(ARGV, at, at + PER_ENTRY - 1)
    if not stream then stream = stream_of(state_key, shard) end
    add_entry(KEYS[FIRST_STREAM + shard - first_shard], stream, id, first, end_position, last, tonumber(ops), time_ms, '',
              checksum, payload)
    backlog_ops, backlog_bytes = backlog_ops + ops, backlog_bytes + #payload
    if shard ~= ARGV[at + PER_ENTRY] then
      local fields = {}
      note_stream(fields, stream)
      redis.call('HSET', state_key, unpack(fields))
      stream = nil
    end
  end
  set_backlog()
end

-- Makes `new_layout` the present one. `kept` operations of the old shards' are counted by the new ones.
local function become(new_layout, kept)
  local versions = tonumber(versions_before or 0)
  for _, shard in ipairs(new_layout ~= layout and shards_of(layout) or {}) do
    local pointer = redis.call('HGET', state_key, 'm:' .. shard)
    versions = versions + (pointer and cjson.decode(pointer).version or 0)
  end
  local ever = drop(layout, FIRST_STREAM + #shards_of(new_layout))
  set('ops_before', tonumber(ops_before or 0) + ever - kept)
  set('versions_before', versions)
  redis.call('HSET', state_key, 'layout', new_layout, 'laid_s', string.format('%.3f', now_ms() / 1000))
end

local verbs = {}

function verbs.begin(present, following)
  if next_layout then return {'OK', next_layout} end
  if layout ~= present then return {'LOST'} end
  redis.call('HSET', state_key, 'next', following)
  if tonumber(wanted or 0) <= #shards_of(following) then redis.call('HDEL', state_key, 'wanted') end
  return {'OK', following}
end

function verbs.abandon()
  if next_layout then
    drop(next_layout, FIRST_STREAM)
    forget_rebuild()
  end
  return {'OK'}
end

function verbs.restore(restored, restored_epoch, position)
  local DIMENSION, FIRST_POINTER = 6, 7
  if tonumber(present_epoch or 0) >= tonumber(restored_epoch) then return {'OK'} end
  forget_rebuild()
  become(restored, 0)
  for at = FIRST_POINTER, #ARGV, 2 do
    local shard, pointer = unpack(ARGV, at, at + 1)
    if pointer ~= '' then set_pointer(shard, pointer) end
  end
  if ARGV[DIMENSION] ~= '' then redis.call('HSET', state_key, 'dim', ARGV[DIMENSION]) end
  redis.call('HDEL', state_key, 'made', 'cut', 'root')
  if #shards_of(restored) > 1 then redis.call('HSET', state_key, 'cut', position, 'root', position) end
  redis.call('HSET', state_key, 'epoch', restored_epoch)
  return {'OK'}
end

function verbs.initialize(following, starts_min, present_shards)
  local FIRST_START = 6
  local FIRST_POINTER = FIRST_START + 2 * present_shards
  if next_layout ~= following or copied then return {'LOST'} end
  for at = FIRST_START, FIRST_POINTER - 1, 2 do
    local shard, start = unpack(ARGV, at, at + 1)
    -- Trimmed since the manifest was read: what is missing there is in no initial manifest.
    if get('trimmed', shard) > tonumber(start) then return {'LOST'} end
  end
  for at = FIRST_START, FIRST_POINTER - 1, 2 do
    local shard, start = unpack(ARGV, at, at + 1)
    redis.call('HSET', state_key, 'copied:' .. shard, start)
  end
  for at = FIRST_POINTER, #ARGV, 2 do set_pointer(unpack(ARGV, at, at + 1)) end
  redis.call('HSET', state_key, 'copied', starts_min, 'built', 0)
  return {'OK'}
end

function verbs.copy(following, begin, reach)
  local FIRST_ENTRY = 6
  if next_layout ~= following then return {'LOST'} end
  if copied == reach then return {'OK'} end
  if copied ~= begin then return {'LOST'} end
  add_entries(FIRST_ENTRY)
  redis.call('HSET', state_key, 'copied', reach)
  for _, shard in ipairs(shards_of(layout)) do
    -- Never back: what a shard's initial manifest has, which may reach further than this, must not come a second time.
    if get('copied', shard) < tonumber(reach) then redis.call('HSET', state_key, 'copied:' .. shard, reach) end
  end
  return {'OK'}
end

function verbs.built(following, shards)
  if next_layout ~= following then return {'LOST'} end
  redis.call('HSET', state_key, 'built', shards)
  return {'OK'}
end

function verbs.stop(following, ms)
  if next_layout ~= following then return {'LOST'} end
  set('fence', now_ms() + ms)
  return {'OK', tonumber(head)}
end

function verbs.switch(following, begin, expected_head)
  local FIRST_ENTRY = 6
  if next_layout ~= following or copied ~= begin or head ~= expected_head then return {'LOST'} end
  add_entries(FIRST_ENTRY)
  local kept = 0
  for _, shard in ipairs(shards_of(following)) do kept = kept + get('ops', shard) end
  forget_rebuild()
  become(following, kept)
  -- What its shards have compacted so far is below the head: that is where they meet first.
  if #shards_of(following) > 1 then set_cut(state_key, following, head) end
  return {'OK'}
end

if not verbs[verb] then return redis.error_reply('ERR unknown verb') end
return verbs[verb](unpack(ARGV, 3, 5))
