#!lua
-- Appends one request's operations to a collection's log: all of them or none. `keys_of` and `arguments_of` in
-- shared/log/append.py make the keys and arguments.
--
-- KEYS   1   state_key       state hash of the collection
--        2   request_key     what is remembered of the request: '<first> <head>'
--        3   pairs_key       set of the (metadata key, value type) pairs ever written
--        4.. streams         one per shard that is written, in the order of the entries; then one per shard of the condition
--
-- ARGV   1   request_ttl_s   seconds to remember the request
--        2   dimension       width of the embeddings; '' when there are none
--        3   generation      of the catalog row that the caller acted on; '' to accept any
--        4   ops_max         operations that the collection's backlog may hold
--        5   bytes_max       payload bytes that the collection's backlog may hold
--        6   ops             operations in all entries
--        7   new_pairs       msgpack: pairs that may be missing in pairs_key, each as it is kept there; '' for none
--        8   condition       msgpack: {token, {{shard, since, {id, ..}}, ..}}; '' for none. No id may have been written since
--                            the position `token`; it is known that none was written before the position `since`
--        9   made_before     provenance that a function's output must have; '' for none yet
--        10  made_after      and the one that it has with this append; '' when the collection is no output
--        11  request         request id of the append
--        12  epoch           that the caller knew when it began; '' to accept any
--        13  pairs_max       pairs that the collection may have
--        14.. entries        five arguments each: shard, offset of its first operation in the append, operations, checksum of the
--                            payload (xxh3-128 in hex), payload. Those of a shard stand together
--
-- {'OK', first, head, time_ms}
--                        appended at the positions [first, head); when, in ms
-- {'OK', first, head}    appended there by an earlier run under the same request id
-- {'GONE'}               no such collection, or deleted
-- {'EPOCH', e}           the collection was restored in the later epoch e, and what was remembered of requests before is lost
-- {'STALE'}              the catalog row is newer than `generation`, or a shard is not one of the collection's present ones
-- {'LOST', shard}        the state has lost what it says of this shard's stream, and gets it back
-- {'STOPPED'}            not now: the collection's shards are being switched. Again in a moment; the stop expires by itself
-- {'DIMENSION', d}       the collection has dimension d
-- {'PAIRS', n}           the collection would have more pairs than `pairs_max`; it has n
-- {'FULL', ops, bytes}   the backlog would pass a limit; it holds so much now
-- {'CONFLICT'}           what was read may be lost, or was never there: the token is from before a restoration, or ahead
-- {'PROVENANCE'}         the output has another provenance by now
-- {'DOUBT', {shard, ..}} in these shards, the log alone does not tell that no id of the condition was written
--
-- Conditions: docs/design/2026-11-21-transactions.md. Outputs: docs/design/2026-11-21-functions.md.
--
-- No allow-oom flag: a server that is out of memory refuses before the first write; but for deletes the script runs with that
-- flag. Every check stands before the first write, because a script that fails half-way is not rolled back.

local FIRST_STREAM, FIRST_ENTRY, PER_ENTRY = 4, 14, 5
local state_key, request_key, pairs_key = KEYS[1], KEYS[2], KEYS[3]
local request_ttl_s, dimension, generation, ops_max, bytes_max, ops, new_pairs, condition, made_before, made_after, request,
  epoch, pairs_max = unpack(ARGV, 1, FIRST_ENTRY - 1)

local remembered = redis.call('GET', request_key)
if remembered then
  local first, head = string.match(remembered, '^(%d+) (%d+)$')
  return {'OK', tonumber(first), tonumber(head)}
end

local first, fixed_dimension, newest_generation, deleted, backlog_ops, backlog_bytes, layout, stop_ends_ms, floor, made,
  present_epoch, written_in_hour = unpack(
  redis.call('HMGET', state_key, 'head', 'dim', 'gen', 'deleted', 'backlog_ops', 'backlog_bytes', 'layout', 'fence', 'floor',
             'made', 'epoch', 'written'))
if not first or deleted then return {'GONE'} end
-- Lost in part, or damaged (shared/log/required.py).
local function is(form, text) return text and string.match(text, form) end
if not (is('^%d+$', first) and is('^%d+$', newest_generation) and is('^%d+ %d+$', layout) and is('^-?%d+$', backlog_ops) and
        is('^-?%d+$', backlog_bytes) and is('^%d+$', floor or '0') and is('^%d+$', present_epoch or '0')) then
  return {'GONE'}
end
if epoch ~= '' and tonumber(present_epoch or 0) > tonumber(epoch) then return {'EPOCH', tonumber(present_epoch)} end
if generation ~= '' and tonumber(newest_generation) > tonumber(generation) then return {'STALE'} end
if dimension ~= '' and fixed_dimension and fixed_dimension ~= dimension then return {'DIMENSION', tonumber(fixed_dimension)} end
ops, first, backlog_ops, backlog_bytes = tonumber(ops), tonumber(first), tonumber(backlog_ops), tonumber(backlog_bytes)

local seconds, microseconds = unpack(redis.call('TIME'))
local now_ms = seconds * 1000 + math.floor(microseconds / 1000)
if stop_ends_ms and now_ms < tonumber(stop_ends_ms) then return {'STOPPED'} end

local first_shard, shards = string.match(layout, '^(%d+) (%d+)$')
local end_shard = first_shard + shards
first_shard = tonumber(first_shard)

local bytes, streams, before = 0, 0, nil
for at = FIRST_ENTRY, #ARGV, PER_ENTRY do
  local shard, _, _, _, payload = unpack(ARGV, at, at + PER_ENTRY - 1)
  if shard ~= before then
    local number = tonumber(shard)
    if number < first_shard or number >= end_shard then return {'STALE'} end
    if has_lost_stream(state_key, shard, KEYS[FIRST_STREAM + streams]) then return {'LOST', number} end
    streams, before = streams + 1, shard
  end
  bytes = bytes + #payload
end

if condition ~= '' then
  -- The ids of the operations in a payload, an Arrow IPC stream (`shared.log.batch`): a message with the schema, then one with
  -- the batch. Its metadata is a flatbuffer that says where in its body each column's buffers are; the ids' offsets are buffer
  -- 5, their bytes buffer 6. An error where the payload is no such stream: `struct` reads nothing beyond its end.
  local OFFSETS, BYTES = 5, 6
  local function ids_of(payload, count)
    local function number(format, at) return (struct.unpack('<' .. format, payload, at)) end
    local function follow(at) return at + number('I4', at) end
    local function field(at, index) return at + number('I2', at - number('i4', at) + 4 + 2 * index) end
    local message = 9 + number('I4', 5)
    local body = message + 8 + number('I4', message + 4)
    local batch = follow(field(follow(message + 8), 2))
    assert(number('I4', field(batch, 0)) == count)
    local buffers = follow(field(batch, 2)) + 4
    local offsets = body + number('I4', buffers + 16 * OFFSETS)
    local text = body + number('I4', buffers + 16 * BYTES)
    local ids, start = {}, number('I4', offsets)
    for i = 1, count do
      local stop = number('I4', offsets + 4 * i)
      assert(start <= stop and text + stop - 1 <= #payload)
      ids[i] = string.sub(payload, text + start, text + stop - 1)
      start = stop
    end
    return ids
  end

  -- Whether an id may have been written at the position `since` or later: the stream was compacted beyond it, or an operation
  -- names one of the ids. What would take long to find out is in doubt, and so is what a damaged or missing entry wrote.
  local SCANNED_OPS_MAX, SCANNED_BYTES_MAX, PAGE = 10000, 64 * 1024 * 1024, 4
  local PREVIOUS_VALUE, OPS_VALUE = 2, 10  -- where the values of `p` and `n` stand in an entry; that of `d` is the last (entries.lua)
  local function position(id) return tonumber(string.match(id, '^%d+')) end
  local function in_doubt(stream, shard, since, ids)
    local pointer, tail = unpack(redis.call('HMGET', state_key, 'm:' .. shard, 'tail:' .. shard))
    if pointer and cjson.decode(pointer).covers > since then return true end
    local read, scanned_ops, scanned_bytes = nil, 0, 0
    local start, last = string.format('%d-0', since), nil
    while true do
      local page = redis.call('XRANGE', stream, start, '+', 'COUNT', PAGE)
      for _, entry in ipairs(page) do
        local id, values = unpack(entry)
        if not has_own_chain(id, values) then return true end
        local previous, entry_ops, payload = values[PREVIOUS_VALUE], tonumber(values[OPS_VALUE]), values[#values]
        if last and previous ~= last or not last and position(previous) >= since then return true end
        scanned_ops, scanned_bytes = scanned_ops + entry_ops, scanned_bytes + #payload
        if scanned_ops > SCANNED_OPS_MAX or scanned_bytes > SCANNED_BYTES_MAX then return true end
        if not read then
          read = {}
          for _, each in ipairs(ids) do read[each] = true end
        end
        for _, written in ipairs(ids_of(payload, entry_ops)) do
          if read[written] then return true end
        end
        start, last = '(' .. id, id
      end
      if #page < PAGE then
        local newest = last or '0-0'
        return tail ~= nil and tail ~= newest and position(tail or '0-0') >= since
      end
    end
  end

  local token, reads = unpack(cmsgpack.unpack(condition))
  if token < tonumber(floor or 0) or token > first then return {'CONFLICT'} end
  local doubted = {}
  for i, read in ipairs(reads) do
    local shard, since, ids = unpack(read)
    if shard < first_shard or shard >= end_shard then return {'STALE'} end
    local scanned, doubt = pcall(in_doubt, KEYS[FIRST_STREAM + streams + i - 1], shard, since, ids)
    if doubt or not scanned then doubted[#doubted + 1] = shard end
  end
  if #doubted > 0 then return {'DOUBT', doubted} end
end

if made_after ~= '' and (made or '') ~= made_before then return {'PROVENANCE'} end

-- Pairs are counted one by one only where their sum might be too much: most of them are there already then.
local PAIRS_AT_ONCE = 1000  -- arguments of one command
local wanted = new_pairs ~= '' and cmsgpack.unpack(new_pairs) or {}
local kept = #wanted > 0 and redis.call('SCARD', pairs_key) or 0
if kept + #wanted > tonumber(pairs_max) then
  local missing = 0
  for at = 1, #wanted, PAIRS_AT_ONCE do
    local present = redis.call('SMISMEMBER', pairs_key, unpack(wanted, at, math.min(at + PAIRS_AT_ONCE - 1, #wanted)))
    for _, is_present in ipairs(present) do missing = missing + 1 - is_present end
  end
  if missing > 0 and kept + missing > tonumber(pairs_max) then return {'PAIRS', kept} end
end

if backlog_ops + ops > tonumber(ops_max) or backlog_bytes + bytes > tonumber(bytes_max) then
  return {'FULL', backlog_ops, backlog_bytes}
end

-- From here on everything is written.

local head = first + ops
local first_text, head_text, time_text = string.format('%d', first), string.format('%d', head), string.format('%d', now_ms)
local changed = {'head', head_text, 'backlog_ops', string.format('%d', backlog_ops + ops),
                 'backlog_bytes', string.format('%d', backlog_bytes + bytes)}

-- What was written in this hour, for the accounting of usage (`shared.tenancy.usage`): exact, for it is in the same step.
local hour = math.floor(now_ms / 3600000)
local known_hour, hour_ops, hour_bytes = string.match(written_in_hour or '', '^(%d+) (%d+) (%d+)$')
if tonumber(known_hour) ~= hour then
  if known_hour then changed[#changed + 1], changed[#changed + 2] = 'written_before', written_in_hour end
  hour_ops, hour_bytes = 0, 0
end
changed[#changed + 1], changed[#changed + 2] = 'written', string.format('%d %d %d', hour, hour_ops + ops, hour_bytes + bytes)

local written, stream = 0, nil
for at = FIRST_ENTRY, #ARGV, PER_ENTRY do
  local shard, offset, entry_ops, checksum, payload = unpack(ARGV, at, at + PER_ENTRY - 1)
  if not stream then stream = stream_of(state_key, shard) end
  local id, last = string.format('%d-0', first + offset), shard ~= ARGV[at + PER_ENTRY]
  add_entry(KEYS[FIRST_STREAM + written], stream, id, first_text, head_text, last and '1' or '0', tonumber(entry_ops),
            time_text, request, checksum, payload)
  if last then
    note_stream(changed, stream)
    written, stream = written + 1, nil
  end
end
redis.call('HSET', state_key, unpack(changed))
if dimension ~= '' and not fixed_dimension then redis.call('HSET', state_key, 'dim', dimension) end
if made_after ~= '' then redis.call('HSET', state_key, 'made', made_after) end
local grown = 0
for at = 1, #wanted, PAIRS_AT_ONCE do
  grown = grown + redis.call('SADD', pairs_key, unpack(wanted, at, math.min(at + PAIRS_AT_ONCE - 1, #wanted)))
end
if grown > 0 then redis.call('HSET', state_key, 'grown', request) end
redis.call('SET', request_key, first_text .. ' ' .. head_text, 'EX', request_ttl_s)
return {'OK', first, head, now_ms}
