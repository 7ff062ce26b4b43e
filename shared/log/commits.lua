#!lua flags=allow-oom
-- The numbers of commits (shared/manifest/commits.py). allow-oom: a full server is emptied by compactions, which draw one.
--
-- KEYS   1 the number that was drawn last
-- ARGV   'draw'       the next number
--        'raise' n    makes numbers to be drawn higher than n: the number that counts as drawn last

if ARGV[1] == 'draw' then return redis.call('INCR', KEYS[1]) end
local last = tonumber(redis.call('GET', KEYS[1]) or 0)
if last >= tonumber(ARGV[2]) then return last end
redis.call('SET', KEYS[1], ARGV[2])
return tonumber(ARGV[2])
