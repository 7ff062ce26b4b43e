#!lua
-- Appends one request's operations to a collection's log: all of them or none.
--
-- KEYS   1 state hash   2 the request's memory   3 set of (metadata key, type) pairs   4.. one stream per shard written
-- ARGV   1 seconds to remember the request   2 operations in all   3 dimension or ''   4 generation or ''
--        5 limit of operations in the backlog   6 limit of bytes in the backlog   7 number of new pairs, then the pairs;
--        then per stream: shard, number of entries, and per entry: offset of its first operation, operations, payload
--
-- {'OK', first, head}    appended, now or by an earlier run under the same request id
-- {'GONE'}               no such collection, or deleted
-- {'STALE', generation}  the caller's catalog row is older than `generation`, or names shards that the collection has not
-- {'FENCED'}             not now: the collection's shards are being switched; again in a moment, or until the fence expires
-- {'DIMENSION', d}       the collection has dimension d
-- {'FULL', ops, bytes}   the backlog would pass its limit; it holds so much now
--
-- No allow-oom flag: a server that is out of memory refuses before the first write. Every check stands before the first
-- write, because a script that fails half-way is not rolled back.

local seen = redis.call('GET', KEYS[2])
if seen then
  local first, head = string.match(seen, '^(%d+) (%d+)$')
  return {'OK', tonumber(first), tonumber(head)}
end

local state = redis.call('HMGET', KEYS[1], 'head', 'dim', 'gen', 'deleted', 'backlog_ops', 'backlog_bytes', 'layout', 'fence')
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
local pairs_end = 7 + tonumber(ARGV[7])
local bytes = 0
local at = pairs_end + 1
while at <= #ARGV do
  local shard, entries = ARGV[at] - first_shard, tonumber(ARGV[at + 1])
  if shard < 0 or shard >= tonumber(shards) then return {'STALE', tonumber(state[3])} end
  for i = 1, entries do bytes = bytes + #ARGV[at + 1 + 3 * i] end
  at = at + 2 + 3 * entries
end
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
for i = 8, pairs_end do redis.call('SADD', KEYS[3], ARGV[i]) end
redis.call('SET', KEYS[2], string.format('%d %d', first, head), 'EX', ARGV[1])
return {'OK', first, head}
