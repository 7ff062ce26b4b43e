#!lua
-- Replaces what a tenant stores by newer amounts, as a whole: a reader never sees amounts of two looks.
--
-- KEYS   1  stored_key  hash: amount -> number
-- ARGV   1  life_s      seconds after which the hash goes unless it is written again
--        2  field value ..
-- returns 1

local FIRST_FIELD = 2
local stored_key = KEYS[1]
local life_s = ARGV[1]

redis.call('DEL', stored_key)
for at = FIRST_FIELD, #ARGV, 2 do
  redis.call('HSET', stored_key, ARGV[at], ARGV[at + 1])
end
redis.call('EXPIRE', stored_key, life_s)
return 1
