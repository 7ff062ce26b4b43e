#!lua flags=allow-oom
-- A set of names that the log service looks at. allow-oom: a restoration of a full server notes some.
--
-- KEYS   1   set_key   the set
-- ARGV   1   verb      then its arguments:
--            'add' name ..      adds names: 'OK'
--            'remove' name      removes one: 'OK'

local FIRST_NAME = 2
local set_key, verb = KEYS[1], ARGV[1]

local verbs = {}
function verbs.add(...) redis.call('SADD', set_key, ...) end
function verbs.remove(...) redis.call('SREM', set_key, ...) end

if not verbs[verb] then return redis.error_reply('ERR unknown verb') end
verbs[verb](unpack(ARGV, FIRST_NAME))
return 'OK'
