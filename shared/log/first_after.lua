#!lua flags=no-writes,allow-oom
-- Finds the first entry of a stream that was appended after a time. Times never shrink along a stream.
--
-- KEYS   1  stream_key   stream of the shard
-- ARGV   1  time_ms      the time, in ms since the epoch
--
-- {first, previous, previous_ms}   of that entry: first position of its append; id of the entry before it; and the time of
--                                  that one, '0' when the stream does not have it (any more) or it has no time
-- nil                              no entry is so late

local stream_key, time_ms = KEYS[1], tonumber(ARGV[1])

local function fields_of(entry)
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  return fields
end

local function position_of(entry) return tonumber(string.match(entry[1], '^(%d+)-')) end
local function is_late(entry) return tonumber(fields_of(entry).t or 0) > time_ms end

local oldest = redis.call('XRANGE', stream_key, '-', '+', 'COUNT', 1)[1]
local newest = redis.call('XREVRANGE', stream_key, '+', '-', 'COUNT', 1)[1]
if not newest or not is_late(newest) then return false end

-- No entry below `low` is late; `late` is, and so is every entry behind it.
local low, late = position_of(oldest), newest
while low < position_of(late) do
  local middle = low + math.floor((position_of(late) - low) / 2)
  local found = redis.call('XRANGE', stream_key, string.format('%d-0', middle), '+', 'COUNT', 1)[1]
  if is_late(found) then
    late = found
    local before = redis.call('XREVRANGE', stream_key, '(' .. found[1], '-', 'COUNT', 1)[1]
    if not before or not is_late(before) then break end
    late = before
  else
    low = position_of(found) + 1
  end
end

local fields = fields_of(late)
local before = redis.call('XREVRANGE', stream_key, '(' .. late[1], '-', 'COUNT', 1)[1]
return {tonumber(fields.f), fields.p, before and fields_of(before).t or '0'}
