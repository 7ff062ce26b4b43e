#!lua
-- Fills the log of a fork that the catalog does not know yet (docs/design/2026-11-21-fork.md).
--
-- KEYS   1  state_key   state hash of the fork
--        2  target_key  'copy': the stream of the shard. 'open': the set of (metadata key, value type) pairs
-- ARGV   1  verb
--        2  epoch       of the origin when the fork began, which the fork's state has. Then the verb's arguments:
--           'copy' shard after newest entries ..
--                  adds entries to the stream behind the one with the id `after`; `newest` is the id of the last of them. Eight
--                  arguments each: id, first and end position of its append, '1' or '0' (whether it is the last of the append in
--                  the stream), operations, time of the append (ms), checksum of the payload, payload
--           'open' pairs field value ..
--                  adds the pairs (msgpack: a list of pairs as they are kept), and sets these fields of the state
--
-- 'OK'      done, now or by an earlier run
-- 'GONE'    the fork was given up, or is of another epoch
-- 'LOST'    the stream does not end with `after`

local FIRST_ENTRY, PER_ENTRY, FIRST_FIELD = 6, 8, 4
local state_key, target_key = KEYS[1], KEYS[2]
local verb, epoch = ARGV[1], tonumber(ARGV[2])

local head, deleted, backlog_ops, backlog_bytes, ops_before, present_epoch = unpack(
  redis.call('HMGET', state_key, 'head', 'deleted', 'backlog_ops', 'backlog_bytes', 'ops_before', 'epoch'))
if not head or deleted or tonumber(present_epoch or 0) ~= epoch then return 'GONE' end

local verbs = {}

function verbs.copy(shard, after, newest)
  local stream = stream_of(state_key, shard)
  if stream.tail == newest then return 'OK' end
  if stream.tail ~= after then return 'LOST' end
  local other_ops, other_bytes = tonumber(backlog_ops) - stream.ops, tonumber(backlog_bytes) - stream.bytes
  for at = FIRST_ENTRY, #ARGV, PER_ENTRY do
    local id, first, end_position, last, ops, time_ms, checksum, payload = unpack(ARGV, at, at + PER_ENTRY - 1)
    add_entry(target_key, stream, id, first, end_position, last, tonumber(ops), time_ms, '', checksum, payload)
  end
  local fields = {'backlog_ops', string.format('%d', other_ops + stream.ops),
                  'backlog_bytes', string.format('%d', other_bytes + stream.bytes)}
  note_stream(fields, stream)
  redis.call('HSET', state_key, unpack(fields))
  return 'OK'
end

function verbs.open(encoded_pairs)
  -- Once: it may arrive again when the collection is in use, and the head must not go back.
  if ops_before then return 'OK' end
  for _, pair in ipairs(cmsgpack.unpack(encoded_pairs)) do redis.call('SADD', target_key, pair) end
  redis.call('HSET', state_key, unpack(ARGV, FIRST_FIELD))
  return 'OK'
end

if not verbs[verb] then return redis.error_reply('ERR unknown verb') end
return verbs[verb](unpack(ARGV, 3, 5))
