#!lua flags=allow-oom
-- What the states of a function's output and inputs know of it (docs/design/2026-11-21-functions.md). allow-oom: compactions,
-- which empty a full server, end with it.
--
-- KEYS   1 state hash
-- ARGV   'made' before now           of an output: what it is made of, with nothing to append
--        'feed' output versions      of an input: it has this output, which has seen nothing yet. `versions` is the sum of the
--                                    versions of its manifests
--        'ran' output run versions   of an input: its output has seen manifests of so many versions, in this run
--        'unfeed' output             of an input: it has this output no more
--
-- 1, or 0 when there is no such collection, or it is made of something else

local verb = ARGV[1]
local state = redis.call('HMGET', KEYS[1], 'head', 'deleted', 'made', 'feeds', 'ran', 'counted')
if not state[1] or state[2] then return 0 end
if verb == 'made' then
  if (state[3] or '') ~= ARGV[2] then return 0 end
  redis.call('HSET', KEYS[1], 'made', ARGV[3])
elseif verb == 'feed' then
  if state[4] ~= ARGV[2] then redis.call('HSET', KEYS[1], 'feeds', ARGV[2], 'counted', ARGV[3]) end
elseif verb == 'ran' then
  if state[4] == ARGV[2] and tonumber(state[6]) >= tonumber(ARGV[4]) and state[5] == ARGV[3] then return 1 end
  local counted = state[4] == ARGV[2] and math.max(tonumber(state[6]), tonumber(ARGV[4])) or tonumber(ARGV[4])
  if state[5] ~= ARGV[3] then redis.call('HINCRBY', KEYS[1], 'runs', 1) end
  redis.call('HSET', KEYS[1], 'feeds', ARGV[2], 'ran', ARGV[3], 'counted', string.format('%d', counted))
elseif verb == 'unfeed' then
  if state[4] == ARGV[2] then redis.call('HDEL', KEYS[1], 'feeds', 'counted') end
else
  return redis.error_reply('ERR unknown verb')
end
return 1
