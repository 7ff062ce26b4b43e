#!lua flags=allow-oom
-- The live processes of one role. Time is the server's, so that members' clocks don't matter. allow-oom: a full server is emptied
-- by processes that find each other here.
--
-- KEYS   1  members_key      hash: id -> row (JSON)
--        2  heartbeats_key   zset of ids by expiry in ms
-- ARGV   1  verb             then its arguments:
--           'announce' id row ttl_ms    keeps the member for so long, and removes some that have expired: 1
--           'leave' id                  removes the member: 1
--           'list'                      the rows of the members that are alive

local EXPIRED_PER_CALL = 100
local members_key, heartbeats_key = KEYS[1], KEYS[2]
local verb = ARGV[1]

local seconds, microseconds = unpack(redis.call('TIME'))
local now_ms = seconds * 1000 + math.floor(microseconds / 1000)

local function remove(id)
  redis.call('ZREM', heartbeats_key, id)
  redis.call('HDEL', members_key, id)
end

local verbs = {}

function verbs.announce(id, row, ttl_ms)
  redis.call('HSET', members_key, id, row)
  redis.call('ZADD', heartbeats_key, now_ms + ttl_ms, id)
  local expired = redis.call('ZRANGEBYSCORE', heartbeats_key, '-inf', now_ms, 'LIMIT', 0, EXPIRED_PER_CALL)
  for _, each in ipairs(expired) do remove(each) end
  return 1
end

function verbs.leave(id)
  remove(id)
  return 1
end

function verbs.list()
  local rows = {}
  for i, id in ipairs(redis.call('ZRANGEBYSCORE', heartbeats_key, '(' .. now_ms, '+inf')) do
    rows[i] = redis.call('HGET', members_key, id)
  end
  return rows
end

if not verbs[verb] then return redis.error_reply('ERR unknown verb') end
return verbs[verb](unpack(ARGV, 2))
