#!lua flags=allow-oom
-- Puts an append back that Redis has lost, at its own positions (logservice/healing/put_back.py). allow-oom: it was
-- acknowledged.
--
-- KEYS   1   state_key       state hash of the collection
--        2   request_key     what is remembered of the request: '<first> <head>'
--        3   pairs_key       set of the (metadata key, value type) pairs ever written
--        4.. streams         one per shard, in the order of the entries
--
-- ARGV   1   request_ttl_s   seconds to remember the request
--        2   first           first position of the append
--        3   end_position    and the one behind its last
--        4   time_ms         when it was made
--        5   request         its request id; '' when that is not known
--        6   dimension       width of its embeddings; '' when there are none
--        7   pairs           msgpack: pairs that it brought along, each as it is kept; '' for none
--        8   epoch           of the state when the log service began
--        9.. entries         five arguments each: shard, stream id, operations, checksum of the payload, payload. Those of a shard
--                            stand together
--
-- 'OK'       put back
-- 'THERE'    the log has these positions, or later ones
-- 'GONE'     no such collection, or deleted
-- 'EPOCH'    it was restored since, or the log service slept while another one opened the cluster
-- 'LAYOUT'   a shard is not one of the collection's present ones

local FIRST_STREAM, FIRST_ENTRY, PER_ENTRY = 4, 9, 5
local state_key, request_key, pairs_key = KEYS[1], KEYS[2], KEYS[3]
local request_ttl_s, first, end_position, time_ms, request, dimension, pairs_text, epoch = unpack(ARGV, 1, FIRST_ENTRY - 1)

local head, deleted, layout, fixed_dimension, backlog_ops, backlog_bytes, present_epoch = unpack(
  redis.call('HMGET', state_key, 'head', 'deleted', 'layout', 'dim', 'backlog_ops', 'backlog_bytes', 'epoch'))
if not head or deleted then return 'GONE' end
if tonumber(present_epoch or 0) ~= tonumber(epoch) then return 'EPOCH' end
local function position(id) return tonumber(string.match(id, '^%d+')) end
local first_shard, shards = string.match(layout, '^(%d+) (%d+)$')
for at = FIRST_ENTRY, #ARGV, PER_ENTRY do
  local shard, id = tonumber(ARGV[at]), ARGV[at + 1]
  if shard < tonumber(first_shard) or shard >= first_shard + shards then return 'LAYOUT' end
  if position(redis.call('HGET', state_key, 'tail:' .. ARGV[at]) or '0-0') >= position(id) then return 'THERE' end
end

local ops, bytes = 0, 0
-- A state that was restored from the bucket has a head beyond everything already.
local changed, written, stream = {'head', string.format('%d', math.max(head, end_position))}, 0, nil
for at = FIRST_ENTRY, #ARGV, PER_ENTRY do
  local shard, id, entry_ops, checksum, payload = unpack(ARGV, at, at + PER_ENTRY - 1)
  if not stream then stream = stream_of(state_key, shard) end
  local last = shard ~= ARGV[at + PER_ENTRY]
  add_entry(KEYS[FIRST_STREAM + written], stream, id, first, end_position, last and '1' or '0', tonumber(entry_ops), time_ms,
            request, checksum, payload)
  ops, bytes = ops + entry_ops, bytes + #payload
  if last then
    note_stream(changed, stream)
    written, stream = written + 1, nil
  end
end
changed[#changed + 1], changed[#changed + 2] = 'backlog_ops', string.format('%d', backlog_ops + ops)
changed[#changed + 1], changed[#changed + 2] = 'backlog_bytes', string.format('%d', backlog_bytes + bytes)
redis.call('HSET', state_key, unpack(changed))
if dimension ~= '' and not fixed_dimension then redis.call('HSET', state_key, 'dim', dimension) end
if pairs_text ~= '' then
  for _, pair in ipairs(cmsgpack.unpack(pairs_text)) do redis.call('SADD', pairs_key, pair) end
end
if request ~= '' then redis.call('SET', request_key, first .. ' ' .. end_position, 'EX', request_ttl_s) end
return 'OK'
