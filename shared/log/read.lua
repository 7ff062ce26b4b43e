#!lua flags=no-writes,allow-oom
-- Reads a shard's state and the entries of its stream after an id, as of one moment.
--
-- KEYS   1 state hash   2 stream
-- ARGV   1 id after which to read   2 bytes of payload after which to stop, or ''
--        3 mark of the fields that the reader knows, or ''   4.. fields of the state to read
--
-- nil                                  the state does not exist
-- 1                                    the fields have that mark still. Every append changes some (head, tail): who had
--                                      read everything then has everything now
-- {fields, entries, complete, mark}    entries as XRANGE gives them; complete is 0 when the limit ended the reading

local fields = redis.call('HMGET', KEYS[1], unpack(ARGV, 4))
if not fields[1] and redis.call('EXISTS', KEYS[1]) == 0 then return false end
local mark = redis.sha1hex(cmsgpack.pack(fields))
if mark == ARGV[3] then return 1 end
local limit = tonumber(ARGV[2])
local after, entries, size = ARGV[1], {}, 0
-- With a limit, no more are taken out at once than should go below it, going by those so far: an entry may have megabytes,
-- and while this runs nobody else is served.
local count = limit and 4 or 100
while true do
  local some = redis.call('XRANGE', KEYS[2], '(' .. after, '+', 'COUNT', count)
  for i = 1, #some do
    local values = some[i][2]
    size = size + #values[#values]
    entries[#entries + 1] = some[i]
    -- At least one entry always goes out, so that a reader with a small limit gets on.
    if limit and size >= limit then
      local more = redis.call('XRANGE', KEYS[2], '(' .. some[i][1], '+', 'COUNT', 1)
      return {fields, entries, #more == 0 and 1 or 0, mark}
    end
  end
  if #some < count then return {fields, entries, 1, mark} end
  after = some[#some][1]
  if limit then
    count = math.max(1, math.min(100, math.ceil((limit - size) * #entries / math.max(size, 1))))
  end
end
