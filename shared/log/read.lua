#!lua flags=no-writes,allow-oom
-- Reads a shard's state and the entries of its stream after an id, as of one moment.
--
-- KEYS   1    state_key    state hash of the collection
--        2    stream_key   stream of the shard
-- ARGV   1    after        id of the entry behind which to read
--        2    bytes_max    payload bytes after which to stop; '' for no limit
--        3    known_mark   mark of the fields that the reader knows; '' for none
--        4..  fields       of the state, to read
--
-- nil                            the state does not exist
-- 1                              the fields have the known mark still. Every append changes some (head, tail), so a reader who had
--                                read everything then has everything now
-- {values, entries, complete, mark}
--                                values of the fields; entries as XRANGE gives them; complete: 1, or 0 when the limit ended the
--                                reading; mark: equal only when the values are

local FIRST_FIELD = 4
local state_key, stream_key = KEYS[1], KEYS[2]
local after, bytes_max, known_mark = ARGV[1], tonumber(ARGV[2]), ARGV[3]

local values = redis.call('HMGET', state_key, unpack(ARGV, FIRST_FIELD))
local first_value = values[1]
if not first_value and redis.call('EXISTS', state_key) == 0 then return false end
local mark = redis.sha1hex(cmsgpack.pack(values))
if mark == known_mark then return 1 end

local FIRST_PAGE, FIRST_PAGE_LIMITED, PAGE_MAX = 100, 4, 100
local entries, bytes = {}, 0
-- With a limit, no more are taken out at once than should go below it, going by those so far: an entry may have megabytes, and
-- while this runs nobody else is served.
local count = bytes_max and FIRST_PAGE_LIMITED or FIRST_PAGE
while true do
  local page = redis.call('XRANGE', stream_key, '(' .. after, '+', 'COUNT', count)
  for _, entry in ipairs(page) do
    local id, fields = entry[1], entry[2]
    local payload = fields[#fields]  -- the last field (entries.lua)
    bytes = bytes + #payload
    entries[#entries + 1] = entry
    -- At least one entry always goes out, so that a reader with a small limit gets on.
    if bytes_max and bytes >= bytes_max then
      local more = redis.call('XRANGE', stream_key, '(' .. id, '+', 'COUNT', 1)
      return {values, entries, #more == 0 and 1 or 0, mark}
    end
    after = id
  end
  if #page < count then return {values, entries, 1, mark} end
  if bytes_max then
    local mean_bytes = math.max(bytes, 1) / #entries
    count = math.max(1, math.min(PAGE_MAX, math.ceil((bytes_max - bytes) / mean_bytes)))
  end
end
