#!lua flags=allow-oom
-- The cluster's mark and the last report. allow-oom: a full server is emptied only after these are written.
--
-- KEYS   1  cluster_key   hash: the mark of the cluster
--        2  report_key    string: what the last reconciliation found
-- ARGV   1  verb          then its arguments:
--           'mark' field value ..   sets fields of the mark: 'OK'
--           'report' report         keeps the report (JSON): 'OK'

local FIRST_FIELD = 2
local cluster_key, report_key = KEYS[1], KEYS[2]
local verb, report = ARGV[1], ARGV[2]

if verb == 'mark' then
  redis.call('HSET', cluster_key, unpack(ARGV, FIRST_FIELD))
  return 'OK'
elseif verb == 'report' then
  redis.call('SET', report_key, report)
  return 'OK'
end
return redis.error_reply('ERR unknown verb')
