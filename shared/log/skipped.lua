#!lua flags=no-writes,allow-oom
-- The entries of a collection's log that an operator had skipped.
--
-- KEYS   1  state_key   state hash of the collection
-- ARGV   1  nothing: there are no arguments
--
-- {field, list, ..}   each field 'skipped:<shard>', and its JSON list (shared/log/substitutes.py)

local state_key = KEYS[1]

local found = {}
for _, field in ipairs(redis.call('HKEYS', state_key)) do
  if string.match(field, '^skipped:%d+$') then
    found[#found + 1] = field
    found[#found + 1] = redis.call('HGET', state_key, field)
  end
end
return found
