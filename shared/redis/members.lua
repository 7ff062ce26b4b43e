#!lua flags=allow-oom
-- Live processes of one role. Time is the server's, so that members' clocks don't matter.
--
-- KEYS   1 hash: id -> JSON   2 zset: id by expiry in ms
-- ARGV   'announce' id json ms    keeps the member for so long; removes the expired ones
--        'leave' id
--        'list'                   JSON of the members that are alive

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local verb = ARGV[1]
if verb == 'announce' then
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
  redis.call('ZADD', KEYS[2], now + ARGV[4], ARGV[2])
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 100)) do
    redis.call('ZREM', KEYS[2], id)
    redis.call('HDEL', KEYS[1], id)
  end
  return 1
elseif verb == 'leave' then
  redis.call('ZREM', KEYS[2], ARGV[2])
  redis.call('HDEL', KEYS[1], ARGV[2])
  return 1
elseif verb == 'list' then
  local alive = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. now, '+inf')
  local found = {}
  for i, id in ipairs(alive) do found[i] = redis.call('HGET', KEYS[1], id) end
  return found
end
return redis.error_reply('ERR unknown verb')
