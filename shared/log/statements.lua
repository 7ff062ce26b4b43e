#!lua flags=allow-oom
-- Witnesses of what Redis held, and what they give back after it restarted (shared/log/statements.py). allow-oom: a server that came
-- back with less must get it back, however full it is; all of it expires or is removed when the cluster is open.
--
-- KEYS   1  heartbeats_key   zset: witness -> when it was heard last, in ms
--        2  statements_key   hash of this run of the server: witness -> its statement
--        3  entries_key      list of this run and witness: entries that it gives back
-- ARGV   1  verb             then its arguments:
--           'announce' witness                  it is there
--           'leave' witness                     it is not any more
--           'give' ttl_s entries                adds to the entries
--           'state' ttl_s witness statement     makes its statement: all that it gives back is there
--
-- 1

local heartbeats_key, statements_key, entries_key = KEYS[1], KEYS[2], KEYS[3]
local verb = ARGV[1]

local FORGOTTEN_MS = 24 * 3600 * 1000  -- a witness that was not heard for so long is forgotten
local verbs = {}

function verbs.announce(witness)
  local seconds, microseconds = unpack(redis.call('TIME'))
  local now_ms = seconds * 1000 + math.floor(microseconds / 1000)
  redis.call('ZADD', heartbeats_key, now_ms, witness)
  redis.call('ZREMRANGEBYSCORE', heartbeats_key, '-inf', now_ms - FORGOTTEN_MS)
  return 1
end

function verbs.leave(witness)
  redis.call('ZREM', heartbeats_key, witness)
  return 1
end

function verbs.give(ttl_s, entries)
  redis.call('RPUSH', entries_key, entries)
  redis.call('EXPIRE', entries_key, ttl_s)
  return 1
end

function verbs.state(ttl_s, witness, statement)
  redis.call('HSET', statements_key, witness, statement)
  redis.call('EXPIRE', statements_key, ttl_s)
  return 1
end

if not verbs[verb] then return redis.error_reply('ERR unknown verb') end
return verbs[verb](unpack(ARGV, 2))
