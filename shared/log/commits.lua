#!lua flags=allow-oom
-- The numbers of commits (shared/manifest/commits.py). allow-oom: a full server is emptied by compactions, which draw one.
--
-- KEYS   1  commits_key   the number that was drawn last
-- ARGV   1  verb          then its arguments:
--           'draw'            draws the next number and returns it
--           'raise' least     makes every number to be drawn higher than `least`; returns the number that counts as drawn last

local commits_key = KEYS[1]
local verb, least = unpack(ARGV)

-- A number that cannot be read is none: a comparison with the bucket takes that for a Redis that went back, which is safe.
local present = redis.call('GET', commits_key)
if present and not (present:match('^%d+$') and #present < 16) then redis.call('DEL', commits_key) end

if verb == 'draw' then return redis.call('INCR', commits_key) end
if verb ~= 'raise' then return redis.error_reply('ERR unknown verb') end
local last = tonumber(redis.call('GET', commits_key) or 0)
if last >= tonumber(least) then return last end
redis.call('SET', commits_key, least)
return tonumber(least)
