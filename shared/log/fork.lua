#!lua
-- Fills the log of a fork that the catalog does not know yet (docs/design/2026-11-21-fork.md).
--
-- KEYS   1 state hash   2 the stream of a shard ('copy'), or the set of (metadata key, type) pairs ('open')
-- ARGV   'copy' shard after, then per entry: id, first and end of its append, 1 if it is the last of the append, operations, payload
--             adds entries behind the one called `after`
--        'open' number of pairs, the pairs, field value ..
--
-- {'OK'}     done, now or by an earlier run
-- {'GONE'}   the state was given up
-- {'LOST'}   the stream does not end with `after`

local state = redis.call('HMGET', KEYS[1], 'head', 'deleted', 'backlog_ops', 'backlog_bytes')
if not state[1] or state[2] then return {'GONE'} end

if ARGV[1] == 'copy' then
  local shard, after = ARGV[2], ARGV[3]
  local own = redis.call('HMGET', KEYS[1], 'tail:' .. shard, 'ops:' .. shard, 'bytes:' .. shard)
  local tail, ops, bytes = own[1] or '0-0', tonumber(own[2] or 0), tonumber(own[3] or 0)
  if tail == ARGV[#ARGV - 5] then return {'OK'} end
  if tail ~= after then return {'LOST'} end
  local backlog_ops, backlog_bytes = tonumber(state[3]) - ops, tonumber(state[4]) - bytes
  for at = 4, #ARGV, 6 do
    local n, payload = tonumber(ARGV[at + 4]), ARGV[at + 5]
    ops, bytes = ops + n, bytes + #payload
    redis.call('XADD', KEYS[2], ARGV[at], 'p', tail, 'f', ARGV[at + 1], 'e', ARGV[at + 2], 'l', ARGV[at + 3], 'n', n,
               'c', string.format('%d %d', ops, bytes), 'd', payload)
    tail = ARGV[at]
  end
  redis.call('HSET', KEYS[1], 'tail:' .. shard, tail, 'ops:' .. shard, string.format('%d', ops),
             'bytes:' .. shard, string.format('%d', bytes), 'backlog_ops', string.format('%d', backlog_ops + ops),
             'backlog_bytes', string.format('%d', backlog_bytes + bytes))
elseif ARGV[1] == 'open' then
  -- Once: it may arrive again when the collection is in use, and the head must not go back.
  if redis.call('HEXISTS', KEYS[1], 'ops_before') == 1 then return {'OK'} end
  local last = 2 + tonumber(ARGV[2])
  for i = 3, last do redis.call('SADD', KEYS[2], ARGV[i]) end
  redis.call('HSET', KEYS[1], unpack(ARGV, last + 1))
else
  return redis.error_reply('ERR unknown verb')
end
return {'OK'}
