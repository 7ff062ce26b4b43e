#!lua
-- Appends one request's operations to a collection's log: all of them or none.
--
-- KEYS   1 state hash   2 the request's memory   3 set of (metadata key, type) pairs   4.. one stream per shard written,
--        then one per shard that the condition names
-- ARGV   1 seconds to remember the request   2 operations in all   3 dimension or ''   4 generation or ''
--        5 limit of operations in the backlog   6 limit of bytes in the backlog
--        7 number of arguments of the condition, 0: none; then they are: the position that was read as of, and per shard: shard,
--          position up to which the ids are known to be unchanged, number of ids, the ids
--        then 0, or 2 and what an output must have been made of and is made of now (docs/design/2026-11-21-functions.md);
--        then the number of new pairs, and the pairs;
--        then per stream: shard, number of entries, and per entry: offset of its first operation, operations, payload
--
-- {'OK', first, head}    appended, now or by an earlier run under the same request id
-- {'GONE'}               no such collection, or deleted
-- {'STALE', generation}  the caller's catalog row is older than `generation`, or names shards that the collection has not
-- {'FENCED'}             not now: the collection's shards are being switched; again in a moment, or until the fence expires
-- {'DIMENSION', d}       the collection has dimension d
-- {'FULL', ops, bytes}   the backlog would pass its limit; it holds so much now
-- {'CONFLICT'}           what was read may be lost, or was never there: the position is from before a restoration, or ahead
-- {'REMADE'}             the output is made of something else by now
-- {'DOUBT', shard ..}    in these shards, the log alone does not tell that no id of the condition was written
--
-- Conditions: docs/design/2026-11-21-transactions.md.
--
-- No allow-oom flag: a server that is out of memory refuses before the first write. Every check stands before the first
-- write, because a script that fails half-way is not rolled back.

local seen = redis.call('GET', KEYS[2])
if seen then
  local first, head = string.match(seen, '^(%d+) (%d+)$')
  return {'OK', tonumber(first), tonumber(head)}
end

local state = redis.call('HMGET', KEYS[1], 'head', 'dim', 'gen', 'deleted', 'backlog_ops', 'backlog_bytes', 'layout', 'fence', 'floor',
                         'made')
if not state[1] or state[4] then return {'GONE'} end
local count, dimension, generation = tonumber(ARGV[2]), ARGV[3], ARGV[4]
if generation ~= '' and tonumber(state[3]) > tonumber(generation) then return {'STALE', tonumber(state[3])} end
if dimension ~= '' and state[2] and state[2] ~= dimension then return {'DIMENSION', tonumber(state[2])} end

if state[8] then
  local clock = redis.call('TIME')
  if clock[1] * 1000 + math.floor(clock[2] / 1000) < tonumber(state[8]) then return {'FENCED'} end
end
local first_shard, shards = string.match(state[7], '^(%d+) (%d+)$')

-- Walk the arguments once without writing: the size must be known before anything is handed out.
local condition_end = 7 + tonumber(ARGV[7])
local made_end = condition_end + 1 + tonumber(ARGV[condition_end + 1])
local pairs_end = made_end + 1 + tonumber(ARGV[made_end + 1])
local bytes, streams = 0, 0
local at = pairs_end + 1
while at <= #ARGV do
  local shard, entries = ARGV[at] - first_shard, tonumber(ARGV[at + 1])
  if shard < 0 or shard >= tonumber(shards) then return {'STALE', tonumber(state[3])} end
  for i = 1, entries do bytes = bytes + #ARGV[at + 1 + 3 * i] end
  streams = streams + 1
  at = at + 2 + 3 * entries
end

-- The ids of the operations in a payload, an Arrow IPC stream (`shared.log.batch`): a message with the schema, then one with the
-- batch. Its metadata is a flatbuffer that says where in its body each column's buffers are; the ids' offsets are buffer 5,
-- their bytes buffer 6.
local OFFSETS, BYTES = 5, 6
local function ids_of(payload, count)
  local function number(format, at) return (struct.unpack('<' .. format, payload, at)) end
  local function follow(at) return at + number('I4', at) end
  local function field(at, slot) return at + number('I2', at - number('i4', at) + 4 + 2 * slot) end
  local message = 9 + number('I4', 5)
  local body = message + 8 + number('I4', message + 4)
  local batch = follow(field(follow(message + 8), 2))
  local buffers = follow(field(batch, 2)) + 4
  local offsets = body + number('I4', buffers + 16 * OFFSETS)
  local bytes = body + number('I4', buffers + 16 * BYTES)
  local ids, start = {}, number('I4', offsets)
  for i = 1, count do
    local stop = number('I4', offsets + 4 * i)
    ids[i] = string.sub(payload, bytes + start, bytes + stop - 1)
    start = stop
  end
  return ids
end

-- Whether ids may have been written from a position on: the stream was compacted beyond it, or an operation names one of them.
-- What would take long is in doubt.
local LOOKED_AT_MAX, LOOKED_AT_BYTES_MAX = 10000, 64 * 1024 * 1024
local function in_doubt(stream, shard, since, from, to)
  local pointer = redis.call('HGET', KEYS[1], 'm:' .. shard)
  if pointer and cjson.decode(pointer).covers > since then return true end
  local asked, looked_at, bytes_looked_at = nil, 0, 0
  local start = string.format('%d-0', since)
  while true do
    local some = redis.call('XRANGE', stream, start, '+', 'COUNT', 4)
    for _, entry in ipairs(some) do
      local count = tonumber(entry[2][10])
      looked_at, bytes_looked_at = looked_at + count, bytes_looked_at + #entry[2][14]
      if looked_at > LOOKED_AT_MAX or bytes_looked_at > LOOKED_AT_BYTES_MAX then return true end
      if not asked then
        asked = {}
        for i = from, to do asked[ARGV[i]] = true end
      end
      for _, id in ipairs(ids_of(entry[2][14], count)) do
        if asked[id] then return true end
      end
    end
    if #some < 4 then return false end
    start = '(' .. some[4][1]
  end
end

if condition_end > 7 then
  local token = tonumber(ARGV[8])
  if token < tonumber(state[9] or 0) or token > tonumber(state[1]) then return {'CONFLICT'} end
  local doubted = {'DOUBT'}
  local stream = 4 + streams
  at = 9
  while at <= condition_end do
    local shard, ids = ARGV[at] - first_shard, tonumber(ARGV[at + 2])
    if shard < 0 or shard >= tonumber(shards) then return {'STALE', tonumber(state[3])} end
    if in_doubt(KEYS[stream], ARGV[at], tonumber(ARGV[at + 1]), at + 3, at + 2 + ids) then
      doubted[#doubted + 1] = tonumber(ARGV[at])
    end
    stream = stream + 1
    at = at + 3 + ids
  end
  if #doubted > 1 then return doubted end
end

if made_end > condition_end + 1 and (state[10] or '') ~= ARGV[condition_end + 2] then return {'REMADE'} end

local backlog_ops, backlog_bytes = tonumber(state[5]), tonumber(state[6])
if backlog_ops + count > tonumber(ARGV[5]) or backlog_bytes + bytes > tonumber(ARGV[6]) then
  return {'FULL', backlog_ops, backlog_bytes}
end

local first = tonumber(state[1])
local head = first + count
local changed = {'head', string.format('%d', head),
                 'backlog_ops', string.format('%d', backlog_ops + count),
                 'backlog_bytes', string.format('%d', backlog_bytes + bytes)}
local function set(field, value)
  changed[#changed + 1] = field
  changed[#changed + 1] = value
end

local stream = 4
at = pairs_end + 1
while at <= #ARGV do
  local shard, entries = ARGV[at], tonumber(ARGV[at + 1])
  local own = redis.call('HMGET', KEYS[1], 'tail:' .. shard, 'ops:' .. shard, 'bytes:' .. shard)
  local tail, ops, size = own[1] or '0-0', tonumber(own[2] or 0), tonumber(own[3] or 0)
  for i = 1, entries do
    local base = at + 3 * i - 1
    local offset, n, payload = tonumber(ARGV[base]), tonumber(ARGV[base + 1]), ARGV[base + 2]
    local id = string.format('%d-0', first + offset)
    ops, size = ops + n, size + #payload
    redis.call('XADD', KEYS[stream], id, 'p', tail, 'f', string.format('%d', first), 'e', string.format('%d', head),
               'l', i == entries and '1' or '0', 'n', n, 'c', string.format('%d %d', ops, size), 'd', payload)
    tail = id
  end
  set('tail:' .. shard, tail)
  set('ops:' .. shard, string.format('%d', ops))
  set('bytes:' .. shard, string.format('%d', size))
  stream = stream + 1
  at = at + 2 + 3 * entries
end

if dimension ~= '' and not state[2] then set('dim', dimension) end
redis.call('HSET', KEYS[1], unpack(changed))
if made_end > condition_end + 1 then redis.call('HSET', KEYS[1], 'made', ARGV[made_end]) end
for i = made_end + 2, pairs_end do redis.call('SADD', KEYS[3], ARGV[i]) end
redis.call('SET', KEYS[2], string.format('%d %d', first, head), 'EX', ARGV[1])
return {'OK', first, head}
