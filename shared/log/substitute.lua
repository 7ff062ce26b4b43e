#!lua flags=allow-oom
-- Substitutes for entries of a shard's stream that are damaged or missing (shared/log/substitutes.py). Nothing can be put into the
-- middle of a stream. allow-oom: what is damaged is not compacted, and a full server is emptied by compaction.
--
-- KEYS   1  state_key    state hash of the collection
--        2  stream_key   stream of the shard
--        3  substitutes_key   hash: '<shard>:<entry id>' -> JSON of the substitute's fields but d, and with ':d' behind it -> d
-- ARGV   1  verb         then its arguments:
--           'around' id field ..
--                  what the stream has around the entry
--           'put' shard id json payload skipped
--                  stores a substitute for the entry. `skipped` is JSON of what it leaves out: added to `skipped:<shard>`, a JSON
--                  list in the state, unless the entry has a substitute that leaves out as much; '' when nothing is left out
--
-- nil         no such collection, or deleted
-- 'around'    {values of the fields, {entry before}, {the entry}, {entry after}}, the entries as XRANGE gives them, or empty
-- 'put'       1, or 0 when the entry was trimmed, or never written

local state_key, stream_key, substitutes_key = KEYS[1], KEYS[2], KEYS[3]
local verb = ARGV[1]

local head, deleted = unpack(redis.call('HMGET', state_key, 'head', 'deleted'))
if not head or deleted then return false end

local verbs = {}

function verbs.around(id)
  local FIRST_FIELD = 3
  return {redis.call('HMGET', state_key, unpack(ARGV, FIRST_FIELD)),
          redis.call('XREVRANGE', stream_key, '(' .. id, '-', 'COUNT', 1),
          redis.call('XRANGE', stream_key, id, id),
          redis.call('XRANGE', stream_key, '(' .. id, '+', 'COUNT', 1)}
end

function verbs.put(shard, id, json, payload, skipped)
  local function position(text) return tonumber(string.match(text, '^%d+')) end
  local tail, trimmed, before = unpack(
    redis.call('HMGET', state_key, 'tail:' .. shard, 'trimmed:' .. shard, 'skipped:' .. shard))
  if position(id) > position(tail or '0-0') or position(id) < tonumber(trimmed or 0) then return 0 end
  local name = shard .. ':' .. id
  if redis.call('HGET', substitutes_key, name) == json then return 1 end
  redis.call('HSET', substitutes_key, name, json, name .. ':d', payload)
  if skipped ~= '' then
    local list = before and string.sub(before, 2, -2) .. ',' or ''
    redis.call('HSET', state_key, 'skipped:' .. shard, '[' .. list .. skipped .. ']')
  end
  return 1
end

if not verbs[verb] then return redis.error_reply('ERR unknown verb') end
return verbs[verb](unpack(ARGV, 2, 6))
