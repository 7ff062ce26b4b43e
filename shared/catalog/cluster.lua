#!lua flags=allow-oom
-- The cluster's mark and the last report. allow-oom: a full server is emptied only after these are written.
--
-- KEYS   1 mark of the cluster (hash)   2 report
-- ARGV   'mark' field value ..   sets fields of the mark
--        'report' json           keeps the report

if ARGV[1] == 'mark' then
  redis.call('HSET', KEYS[1], unpack(ARGV, 2))
  return 'OK'
elseif ARGV[1] == 'report' then
  redis.call('SET', KEYS[2], ARGV[2])
  return 'OK'
end
return redis.error_reply('ERR unknown verb')
