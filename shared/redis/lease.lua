#!lua flags=allow-oom
-- A lease: one holder at a time, until it expires.
--
-- KEYS   1 the lease
-- ARGV   'acquire' holder ms    1 when the holder has it now (anew or still), else 0
--        'renew' holder ms      1, or 0 when the holder does not have it
--        'release' holder       1, or 0 when the holder does not have it

local holder = redis.call('GET', KEYS[1])
local mine = holder == ARGV[2]
if ARGV[1] == 'release' then return mine and redis.call('DEL', KEYS[1]) or 0 end
if mine or (ARGV[1] == 'acquire' and not holder) then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  return 1
end
return 0
