#!lua flags=allow-oom
-- The queue of compaction jobs. A job is a shard, '<collection id>:<shard>'; it is queued or leased, never both. Leases only save
-- work. allow-oom: a full server is emptied by compactions.
--
-- KEYS   1  queue_key    zset of jobs by priority
--        2  leases_key   hash: job -> '<expiry in ms> <holder>'
-- ARGV   1  verb         then its arguments:
--           'put' job priority             queues the job or changes its priority: 1, or 0 when it is leased
--           'claim' holder ttl_ms          the job with the highest priority, now leased to the holder; nil when there is none
--           'renew' job holder ttl_ms      prolongs the lease: 1, or 0 when it was lost
--           'finish' job holder            ends the lease: 1, or 0 when it was lost

local queue_key, leases_key = KEYS[1], KEYS[2]
local verb = ARGV[1]

local seconds, microseconds = unpack(redis.call('TIME'))
local now_ms = seconds * 1000 + math.floor(microseconds / 1000)

local function lease(job, holder, ttl_ms)
  redis.call('HSET', leases_key, job, string.format('%d %s', now_ms + ttl_ms, holder))
end

-- The holder of an unexpired lease; an expired one is removed.
local function holder_of(job)
  local held = redis.call('HGET', leases_key, job)
  if not held then return nil end
  local expiry_ms, holder = string.match(held, '^(%d+) (.*)$')
  if tonumber(expiry_ms) > now_ms then return holder end
  redis.call('HDEL', leases_key, job)
  return nil
end

local verbs = {}

function verbs.put(job, priority)
  if holder_of(job) then return 0 end
  redis.call('ZADD', queue_key, priority, job)
  return 1
end

function verbs.claim(holder, ttl_ms)
  -- A claim that is repeated after a lost answer leases another job; the first lease expires unused.
  local job = unpack(redis.call('ZPOPMAX', queue_key))
  if not job then return false end
  lease(job, holder, ttl_ms)
  return job
end

function verbs.renew(job, holder, ttl_ms)
  if holder_of(job) ~= holder then return 0 end
  lease(job, holder, ttl_ms)
  return 1
end

function verbs.finish(job, holder)
  if holder_of(job) ~= holder then return 0 end
  return redis.call('HDEL', leases_key, job)
end

if not verbs[verb] then return redis.error_reply('ERR unknown verb') end
return verbs[verb](unpack(ARGV, 2))
