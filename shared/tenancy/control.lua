#!lua flags=allow-oom
-- Puts control records into Redis; none replaces a newer one. allow-oom: a key must be revocable on a full server.
--
-- KEYS   1  records_key     hash: name -> JSON of the record, with its version
--        2  generation_key  string: a random word, drawn anew whenever records change
-- ARGV   1  generation      the new word
--        2  name version json ..
-- returns the number of records that were newer than what was there

local FIRST_RECORD, FIELDS = 2, 3
local records_key, generation_key = KEYS[1], KEYS[2]
local generation = ARGV[1]
local newer = 0

-- The version of a record; of one that cannot be read it is older than all.
local function version_of(record)
  local can_be_read, fields = pcall(cjson.decode, record)
  return can_be_read and type(fields) == 'table' and tonumber(fields.version) or -1
end

for at = FIRST_RECORD, #ARGV, FIELDS do
  local name, version, json = unpack(ARGV, at, at + FIELDS - 1)
  local known = redis.call('HGET', records_key, name)
  if not known or version_of(known) < tonumber(version) then
    redis.call('HSET', records_key, name, json)
    newer = newer + 1
  end
end
redis.call('SET', generation_key, generation)
return newer
