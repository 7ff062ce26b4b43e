#!lua flags=allow-oom
-- Drops the entries of a shard's stream that a committed manifest covers.
--
-- KEYS   1 state hash   2 stream
-- ARGV   1 shard   2 the manifest's version   3 its hash   4 the position it covers (exclusive)
--
-- n >= 0   entries dropped; 0 also when the manifest is not committed
-- -1       the position lies inside an append, whose other half the manifest can't have: never trimmed
--
-- While a rebuild is still to copy the stream from `copied:<shard>` on, it is kept from there.
-- A version is committed at most once, so an older version than the committed one is an ancestor of it.
-- The newest dropped entry holds the totals up to itself (`c`), so the counters follow without reading the others.

local shard, version, covers = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[4])
local names = {'m:' .. shard, 'trimmed_ops:' .. shard, 'trimmed_bytes:' .. shard, 'backlog_ops', 'backlog_bytes', 'trimmed:' .. shard,
               'copied:' .. shard}
local state = redis.call('HMGET', KEYS[1], unpack(names))
if not state[1] then return 0 end
local committed = cjson.decode(state[1])
local ancestor = version < committed.version and covers <= committed.covers
if not ancestor and not (version == committed.version and ARGV[3] == committed.hash) then return 0 end

if state[7] and tonumber(state[7]) < covers then covers = tonumber(state[7]) end

local dropped = 0
local newest = redis.call('XREVRANGE', KEYS[2], string.format('%d-0', covers - 1), '-', 'COUNT', 1)
if newest[1] then
  local values = {}
  for i = 1, #newest[1][2], 2 do values[newest[1][2][i]] = newest[1][2][i + 1] end
  if tonumber(values.e) > covers then return -1 end
  local ops, bytes = string.match(values.c, '^(%d+) (%d+)$')
  local trimmed_ops, trimmed_bytes = tonumber(state[2] or 0), tonumber(state[3] or 0)
  dropped = redis.call('XTRIM', KEYS[2], 'MINID', string.format('%d-0', covers))
  redis.call('HSET', KEYS[1], names[2], ops, names[3], bytes,
             names[4], string.format('%d', tonumber(state[4]) - (tonumber(ops) - trimmed_ops)),
             names[5], string.format('%d', tonumber(state[5]) - (tonumber(bytes) - trimmed_bytes)))
end
if covers > tonumber(state[6] or 0) then redis.call('HSET', KEYS[1], names[6], string.format('%d', covers)) end
return dropped
