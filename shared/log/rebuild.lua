#!lua flags=allow-oom
-- How a collection gets another layout of shards (docs/design/2026-11-21-rebuild.md). allow-oom: what is not copied cannot be
-- trimmed.
--
-- KEYS   1 state hash, then the streams of the next layout, then those of the present one
-- ARGV   'begin' layout next                 names the layout to be built: {'OK', the one that is being built now}
--        'seed' next copied, number of present shards, per shard: shard, position from which its stream is still to be copied,
--             then per new shard: shard, pointer of its first manifest
--        'copy' next copied reach, parts     adds to the new streams what the log has in [copied, reach): {'OK'}
--        'built' next n                      n of the new shards have segments of their own
--        'fence' next ms                     appends wait for so long: {'OK', head}
--        'switch' next copied head, parts    the same as copy up to the head, and the next layout is the present one: {'OK'}
--        'abandon'                           forgets the layout that is being built
--        'force' layout, per shard: shard, pointer or ''     makes it the present one, whatever Redis has
--        parts: per stream: shard, number of entries, and per entry: position of its first operation, first and end of its
--             append, 1 if it is the last of the append, operations, payload
--
-- {'GONE'}   no such collection, or deleted
-- {'LOST'}   somebody else was faster: read again

local names = {'head', 'deleted', 'layout', 'next', 'copied', 'wanted', 'backlog_ops', 'backlog_bytes', 'ops_before', 'versions_before'}
local values = redis.call('HMGET', KEYS[1], unpack(names))
local state = {}
for i, name in ipairs(names) do state[name] = values[i] end
if not state.head or state.deleted then return {'GONE'} end

local function get(name, shard) return tonumber(redis.call('HGET', KEYS[1], name .. ':' .. shard) or 0) end
local function set(name, value) redis.call('HSET', KEYS[1], name, string.format('%d', value)) end

local function numbers(layout)
  local first, count = string.match(layout, '^(%d+) (%d+)$')
  local found = {}
  for i = 1, tonumber(count) do found[i] = string.format('%d', first + i - 1) end
  return found
end

-- Drops the streams and fields of a layout; `keys` is where its streams begin. Returns the operations that it ever had.
local function drop(layout, keys)
  local ever = 0
  for i, shard in ipairs(numbers(layout)) do
    local ops, bytes = get('ops', shard), get('bytes', shard)
    ever = ever + ops
    state.backlog_ops = state.backlog_ops - (ops - get('trimmed_ops', shard))
    state.backlog_bytes = state.backlog_bytes - (bytes - get('trimmed_bytes', shard))
    redis.call('DEL', KEYS[keys + i - 1])
    local fields = {}
    for _, name in ipairs({'tail', 'm', 'ops', 'bytes', 'trimmed_ops', 'trimmed_bytes', 'trimmed', 'copied'}) do
      fields[#fields + 1] = name .. ':' .. shard
    end
    redis.call('HDEL', KEYS[1], unpack(fields))
  end
  set('backlog_ops', state.backlog_ops)
  set('backlog_bytes', state.backlog_bytes)
  return ever
end

-- Forgets what a rebuild noted; the shards' own fields stay.
local function forget_next()
  redis.call('HDEL', KEYS[1], 'next', 'copied', 'built', 'fence')
  for _, shard in ipairs(numbers(state.layout)) do redis.call('HDEL', KEYS[1], 'copied:' .. shard) end
end

local function append(at)
  while at <= #ARGV do
    local shard, entries = ARGV[at], tonumber(ARGV[at + 1])
    local stream = KEYS[2 + shard - string.match(state.next, '^%d+')]
    local tail = redis.call('HGET', KEYS[1], 'tail:' .. shard) or '0-0'
    local ops, bytes = get('ops', shard), get('bytes', shard)
    at = at + 2
    for _ = 1, entries do
      local id, n, payload = ARGV[at] .. '-0', tonumber(ARGV[at + 4]), ARGV[at + 5]
      ops, bytes = ops + n, bytes + #payload
      state.backlog_ops, state.backlog_bytes = state.backlog_ops + n, state.backlog_bytes + #payload
      redis.call('XADD', stream, id, 'p', tail, 'f', ARGV[at + 1], 'e', ARGV[at + 2], 'l', ARGV[at + 3], 'n', n,
                 'c', string.format('%d %d', ops, bytes), 'd', payload)
      tail = id
      at = at + 6
    end
    redis.call('HSET', KEYS[1], 'tail:' .. shard, tail)
    set('ops:' .. shard, ops)
    set('bytes:' .. shard, bytes)
  end
  set('backlog_ops', state.backlog_ops)
  set('backlog_bytes', state.backlog_bytes)
end

local function now_ms()
  local clock = redis.call('TIME')
  return clock[1] * 1000 + math.floor(clock[2] / 1000)
end

local function version(shard)
  local pointer = redis.call('HGET', KEYS[1], 'm:' .. shard)
  return pointer and cjson.decode(pointer).version or 0
end

-- Makes `layout` the present one. `kept` operations of the old shards' are counted by the new ones.
local function become(layout, kept)
  local versions = tonumber(state.versions_before or 0)
  for _, shard in ipairs(numbers(state.layout)) do versions = versions + version(shard) end
  local ever = drop(state.layout, 2 + #numbers(layout))
  set('ops_before', tonumber(state.ops_before or 0) + ever - kept)
  set('versions_before', versions)
  redis.call('HSET', KEYS[1], 'layout', layout, 'laid_s', string.format('%.3f', now_ms() / 1000))
end

local verb, target = ARGV[1], ARGV[2]
if verb == 'begin' then
  if state.next then return {'OK', state.next} end
  if state.layout ~= target then return {'LOST'} end
  redis.call('HSET', KEYS[1], 'next', ARGV[3])
  if tonumber(state.wanted or 0) <= #numbers(ARGV[3]) then redis.call('HDEL', KEYS[1], 'wanted') end
  return {'OK', ARGV[3]}
elseif verb == 'abandon' then
  if state.next then
    drop(state.next, 2)
    forget_next()
  end
  return {'OK'}
elseif verb == 'force' then
  if state.layout == target then return {'OK'} end
  forget_next()
  become(target, 0)
  for i = 3, #ARGV, 2 do
    if ARGV[i + 1] ~= '' then redis.call('HSET', KEYS[1], 'm:' .. ARGV[i], ARGV[i + 1]) end
  end
  return {'OK'}
end

if state.next ~= target then return {'LOST'} end
if verb == 'seed' then
  local present = tonumber(ARGV[4])
  for i = 5, 4 + 2 * present, 2 do
    -- Trimmed since the manifest was read: what is missing there is in no seed.
    if state.copied or get('trimmed', ARGV[i]) > tonumber(ARGV[i + 1]) then return {'LOST'} end
  end
  for i = 5, 4 + 2 * present, 2 do redis.call('HSET', KEYS[1], 'copied:' .. ARGV[i], ARGV[i + 1]) end
  for i = 5 + 2 * present, #ARGV, 2 do redis.call('HSET', KEYS[1], 'm:' .. ARGV[i], ARGV[i + 1]) end
  redis.call('HSET', KEYS[1], 'copied', ARGV[3], 'built', 0)
elseif verb == 'copy' then
  if state.copied == ARGV[4] then return {'OK'} end
  if state.copied ~= ARGV[3] then return {'LOST'} end
  append(5)
  redis.call('HSET', KEYS[1], 'copied', ARGV[4])
  for _, shard in ipairs(numbers(state.layout)) do redis.call('HSET', KEYS[1], 'copied:' .. shard, ARGV[4]) end
elseif verb == 'built' then
  redis.call('HSET', KEYS[1], 'built', ARGV[3])
elseif verb == 'fence' then
  set('fence', now_ms() + ARGV[3])
  return {'OK', tonumber(state.head)}
elseif verb == 'switch' then
  if state.copied ~= ARGV[3] or state.head ~= ARGV[4] then return {'LOST'} end
  append(5)
  local copied = 0
  for _, shard in ipairs(numbers(target)) do copied = copied + get('ops', shard) end
  forget_next()
  become(target, copied)
else
  return redis.error_reply('ERR unknown verb')
end
return {'OK'}
