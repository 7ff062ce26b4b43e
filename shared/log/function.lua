#!lua flags=allow-oom
-- What the states of a function's output and inputs say about its runs (docs/design/2026-11-21-functions.md). allow-oom: compactions,
-- which empty a full server, end with it.
--
-- KEYS   1  state_key   state hash of the output ('made') or of an input (all others)
-- ARGV   1  verb        then its arguments:
--           'made' epoch before after
--                  the provenance of the output is `after` instead of `before` ('': none yet), and nothing is appended
--           'feed' output versions
--                  the input has this output, whose function has seen nothing of it yet. `versions` is the sum of the versions of
--                  its manifests
--           'ran' epoch output run versions
--                  the function of this output has seen manifests of so many versions in this run, whose name is new every time
--           'unfeed' output
--                  the input has this output no more
--
--        epoch: of the state from which the caller began
--
-- 1; 0 when there is no such collection, it was restored since, or the output has another provenance

local state_key = KEYS[1]
local verb = ARGV[1]

local head, deleted, made, feeds, last_run, counted, present_epoch = unpack(
  redis.call('HMGET', state_key, 'head', 'deleted', 'made', 'feeds', 'ran', 'counted', 'epoch'))
present_epoch = tonumber(present_epoch or 0)
if not head or deleted then return 0 end

local verbs = {}

function verbs.made(epoch, before, after)
  if tonumber(epoch) ~= present_epoch or (made or '') ~= before then return 0 end
  redis.call('HSET', state_key, 'made', after)
  return 1
end

function verbs.feed(output, versions)
  if feeds ~= output then redis.call('HSET', state_key, 'feeds', output, 'counted', versions) end
  return 1
end

function verbs.ran(epoch, output, run, versions)
  if tonumber(epoch) ~= present_epoch then return 0 end
  local seen = tonumber(versions)
  if feeds == output then
    if (tonumber(counted) or 0) >= seen and last_run == run then return 1 end
    seen = math.max(tonumber(counted) or 0, seen)
  end
  local runs = redis.call('HGET', state_key, 'runs')
  if runs and not runs:match('^%d+$') then redis.call('HDEL', state_key, 'runs') end
  if last_run ~= run then redis.call('HINCRBY', state_key, 'runs', 1) end
  redis.call('HSET', state_key, 'feeds', output, 'ran', run, 'counted', string.format('%d', seen))
  return 1
end

function verbs.unfeed(output)
  if feeds == output then redis.call('HDEL', state_key, 'feeds', 'counted') end
  return 1
end

if not verbs[verb] then return redis.error_reply('ERR unknown verb') end
return verbs[verb](unpack(ARGV, 2))
