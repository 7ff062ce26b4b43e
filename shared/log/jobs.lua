#!lua flags=allow-oom
-- The queue of compaction jobs. A job is a shard; it is queued or leased, never both. Leases only save work.
--
-- KEYS   1 queue: zset of job by priority   2 leases: hash of job -> '<expiry in ms> <holder>'
-- ARGV   'put' job priority             1, or 0 when it is leased
--        'claim' holder ms             the job with the highest priority, now leased to the holder, or nil
--        'renew' job holder ms         1, or 0 when the lease is lost
--        'finish' job holder           1, or 0 when the lease was lost

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function lease(holder, ms) return string.format('%d %s', now + ms, holder) end

-- The holder of an unexpired lease; an expired one is removed.
local function holder_of(job)
  local held = redis.call('HGET', KEYS[2], job)
  if not held then return nil end
  local expiry, holder = string.match(held, '^(%d+) (.*)$')
  if tonumber(expiry) > now then return holder end
  redis.call('HDEL', KEYS[2], job)
  return nil
end

local verb = ARGV[1]
if verb == 'put' then
  if holder_of(ARGV[2]) then return 0 end
  redis.call('ZADD', KEYS[1], ARGV[3], ARGV[2])
  return 1
elseif verb == 'claim' then
  -- A claim that is repeated after a lost answer leases another job; the first lease expires unused.
  local best = redis.call('ZPOPMAX', KEYS[1])
  if not best[1] then return false end
  redis.call('HSET', KEYS[2], best[1], lease(ARGV[2], ARGV[3]))
  return best[1]
elseif verb == 'renew' then
  if holder_of(ARGV[2]) ~= ARGV[3] then return 0 end
  redis.call('HSET', KEYS[2], ARGV[2], lease(ARGV[3], ARGV[4]))
  return 1
elseif verb == 'finish' then
  if holder_of(ARGV[2]) ~= ARGV[3] then return 0 end
  return redis.call('HDEL', KEYS[2], ARGV[2])
end
return redis.error_reply('ERR unknown verb')
