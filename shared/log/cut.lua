-- The cut of a collection with several shards, for the scripts that set it (`uses=["cut"]` puts this text into them).
--
-- No compaction goes beyond the cut, so that the manifests of all shards meet there (shared/manifest/roots.py). In the state it is
--
--   cut           the position: the head at some moment, and so never inside an append
--   cut:<shard>   position of the newest entry that the shard's stream had then, in any manifest or none. A shard whose manifest
--                 covers it has everything below the cut; 0 where it had none

-- Sets the cut of a collection that has this layout. `cut`, which is the present head, is text.
local function set_cut(state_key, layout, cut)
  local first, count = string.match(layout, '^(%d+) (%d+)$')
  local fields = {'cut', cut}
  for number = tonumber(first), tonumber(first) + tonumber(count) - 1 do
    local shard = string.format('%d', number)
    local tail = redis.call('HGET', state_key, 'tail:' .. shard)
    fields[#fields + 1] = 'cut:' .. shard
    fields[#fields + 1] = tail and string.match(tail, '^%d+') or '0'
  end
  redis.call('HSET', state_key, unpack(fields))
end
