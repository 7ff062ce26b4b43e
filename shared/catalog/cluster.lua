#!lua flags=allow-oom
-- The cluster's mark and the last report. allow-oom: a full server is emptied only after these are written.
--
-- KEYS   1  cluster_key   hash: the mark of the cluster
--        2  report_key    string: what the last reconciliation found
--        3  token_key     string, while Redis is restored: the token of the restoration that began last. It is lost with all that
--                         the restoration has put back, if Redis is emptied once more meanwhile
-- ARGV   1  verb          then its arguments:
--           'begin' token           a restoration begins: 'OK'
--           'open' epoch token field value ..
--                                   sets the epoch and other fields of the mark: 'OK'; 'LATER' when it has a later epoch, or
--                                   this is not the token of the restoration that began last; '' for none
--           'verify' epoch run      says that this run of the server was compared with the bucket: 'OK'; 'LATER' in another epoch
--           'owe' epoch most        counts that heads are about to be raised: 'OK'; 'LATER' in another epoch. The count was `most`
--                                   where it cannot be read
--           'raised' epoch run      says that they were raised for this run of the server: 'OK'; 'LATER' in another epoch
--           'settle' run            says that a snapshot has the raised heads, if they were not raised for another since: 'OK'
--           'mend' epoch most id epoch format  new id, format ..   puts a mark in the place of one whose id, epoch and format are
--                                   these ('' for none), which has to be compared with the bucket: 'OK'; 'LATER' when they are not
--           'report' token report   keeps the report (JSON) of a restoration: 'OK'; 'LATER' when another one began since
--           'amend' before report   keeps this report in the place of the one before ('' for none): 'OK'; 'LATER' when it is
--                                   another one by now

local FIRST_FIELD = 4
local cluster_key, report_key, token_key = unpack(KEYS)
local verb, argument, value = unpack(ARGV, 1, 3)

local function is_present(epoch) return redis.call('HGET', cluster_key, 'epoch') == epoch end

local function is_last(token) return token == '' or redis.call('GET', token_key) == token end

-- Puts the most that there may be in the place of a number that cannot be read.
local function keep_number_of_owed(most)
  local owed = redis.call('HGET', cluster_key, 'owed')
  if owed and not owed:match('^%d+$') then redis.call('HSET', cluster_key, 'owed', most) end
end

if verb == 'begin' then
  redis.call('SET', token_key, argument)
  return 'OK'
elseif verb == 'open' then
  if not is_last(value) then return 'LATER' end
  if (tonumber(redis.call('HGET', cluster_key, 'epoch') or 0) or 0) > tonumber(argument) then return 'LATER' end
  redis.call('HSET', cluster_key, 'epoch', argument, unpack(ARGV, FIRST_FIELD))
  redis.call('HDEL', cluster_key, 'doubted')
  redis.call('DEL', token_key)
  return 'OK'
elseif verb == 'verify' then
  if not is_present(argument) then return 'LATER' end
  redis.call('HSET', cluster_key, 'verified', value)
  redis.call('DEL', token_key)
  return 'OK'
elseif verb == 'owe' then
  if not is_present(argument) then return 'LATER' end
  keep_number_of_owed(value)
  redis.call('HINCRBY', cluster_key, 'owed', 1)
  return 'OK'
elseif verb == 'raised' then
  if not is_present(argument) then return 'LATER' end
  redis.call('HSET', cluster_key, 'raised', value)
  return 'OK'
elseif verb == 'mend' then
  local before_id, before_epoch, before_format, id, format = unpack(ARGV, FIRST_FIELD)
  local now = redis.call('HMGET', cluster_key, 'id', 'epoch', 'format')
  if (now[1] or '') ~= before_id or (now[2] or '') ~= before_epoch or (now[3] or '') ~= before_format then return 'LATER' end
  keep_number_of_owed(value)
  redis.call('HSET', cluster_key, 'id', id, 'epoch', argument, 'format', format, 'doubted', 1)
  redis.call('HDEL', cluster_key, 'verified', 'raised')
  return 'OK'
elseif verb == 'settle' then
  if redis.call('HGET', cluster_key, 'raised') == argument then redis.call('HSET', cluster_key, 'owed', 0) end
  return 'OK'
elseif verb == 'report' then
  if not is_last(argument) then return 'LATER' end
  redis.call('SET', report_key, value)
  return 'OK'
elseif verb == 'amend' then
  if (redis.call('GET', report_key) or '') ~= argument then return 'LATER' end
  redis.call('SET', report_key, value)
  return 'OK'
end
return redis.error_reply('ERR unknown verb')
