#!lua flags=allow-oom
-- The rounds of a collection with several shards: its cut, and the root that was written of the last one (cut.lua says what a cut
-- is). allow-oom: compactions wait for the cut, and they empty a full server.
--
-- KEYS   1  state_key   state hash of the collection
-- ARGV   1  verb        'begin'    sets the cut to the head: {'OK', cut}
--                       'rooted'   the root at the cut is in the bucket: {'OK', cut}
--        2  layout      that the collection must have
--        3  expected    cut that it must have; '' for none
--        4  epoch       that it must have
--
-- {'GONE'}   no such collection, or deleted
-- {'LOST'}   another layout, cut or epoch: read again

local state_key = KEYS[1]
local verb, expected_layout, expected, expected_epoch = unpack(ARGV)

local head, deleted, layout, cut, epoch = unpack(redis.call('HMGET', state_key, 'head', 'deleted', 'layout', 'cut', 'epoch'))
if not head or deleted then return {'GONE'} end
if layout ~= expected_layout or (cut or '') ~= expected or (epoch or '0') ~= expected_epoch then return {'LOST'} end

local verbs = {}

function verbs.begin()
  -- A shard whose newest entry is not known would seem to have nothing below the cut.
  local first, count = string.match(layout, '^(%d+) (%d+)$')
  for number = tonumber(first), tonumber(first) + tonumber(count) - 1 do
    local tail, ops, bytes = unpack(redis.call('HMGET', state_key, 'tail:' .. number, 'ops:' .. number, 'bytes:' .. number))
    if not tail and (ops or bytes) then return {'LOST'} end
  end
  set_cut(state_key, layout, head)
  return {'OK', tonumber(head)}
end

function verbs.rooted()
  redis.call('HSET', state_key, 'root', cut)
  return {'OK', tonumber(cut)}
end

if not verbs[verb] then return redis.error_reply('ERR unknown verb') end
return verbs[verb]()
