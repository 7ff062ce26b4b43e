#!lua flags=no-writes,allow-oom
-- Which of some entries a shard's stream has: as they were, though their chain may be another one.
--
-- KEYS   1  stream_key   stream of the shard
-- ARGV   1.. entries    two for each entry: its id, and the checksum of its payload
--
-- For each entry 1 or 0

local stream_key = KEYS[1]
local CHECKSUM = 20

local found = {}
for at = 1, #ARGV, 2 do
  local id, checksum = ARGV[at], ARGV[at + 1]
  local entry = redis.call('XRANGE', stream_key, id, id)[1]
  found[#found + 1] = entry and entry[2][CHECKSUM] == checksum and 1 or 0
end
return found
