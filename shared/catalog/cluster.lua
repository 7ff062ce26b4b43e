#!lua flags=allow-oom
-- The cluster's mark and the last report. allow-oom: a full server is emptied only after these are written.
--
-- KEYS   1  cluster_key   hash: the mark of the cluster
--        2  report_key    string: what the last reconciliation found
-- ARGV   1  verb          then its arguments:
--           'open' epoch field value ..
--                                   sets the epoch and other fields of the mark: 'OK'; 'LATER' when it has a later epoch
--           'verify' run            says that this run of the server was compared with the bucket: 'OK'
--           'owe'                   counts that heads are about to be raised: 'OK'
--           'raised' run            says that they were raised for this run of the server: 'OK'
--           'settle' run            says that a snapshot has the raised heads, if they were not raised for another since: 'OK'
--           'report' report         keeps the report (JSON): 'OK'

local FIRST_FIELD = 3
local cluster_key, report_key = KEYS[1], KEYS[2]
local verb, argument = ARGV[1], ARGV[2]

if verb == 'open' then
  if tonumber(redis.call('HGET', cluster_key, 'epoch') or 0) > tonumber(argument) then return 'LATER' end
  redis.call('HSET', cluster_key, 'epoch', argument, unpack(ARGV, FIRST_FIELD))
  return 'OK'
elseif verb == 'verify' then
  redis.call('HSET', cluster_key, 'verified', argument)
  return 'OK'
elseif verb == 'owe' then
  redis.call('HINCRBY', cluster_key, 'owed', 1)
  return 'OK'
elseif verb == 'raised' then
  redis.call('HSET', cluster_key, 'raised', argument)
  return 'OK'
elseif verb == 'settle' then
  if redis.call('HGET', cluster_key, 'raised') == argument then redis.call('HSET', cluster_key, 'owed', 0) end
  return 'OK'
elseif verb == 'report' then
  redis.call('SET', report_key, argument)
  return 'OK'
end
return redis.error_reply('ERR unknown verb')
