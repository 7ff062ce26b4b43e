#!lua flags=no-writes,allow-oom
-- Whether the keys of a database agree, which one script changes together. allow-oom: it reads, also for a full server's restoration.
--
-- KEYS   1  names_key   hash: name -> id
--        2  rows_key    hash: id -> row
--        3  order_key   zset of ids by time of creation
-- ARGV   1             none
--
-- 1 when they have as many members, else 0

local names_key, rows_key, order_key = unpack(KEYS)
local names, rows, places = redis.call('HLEN', names_key), redis.call('HLEN', rows_key), redis.call('ZCARD', order_key)
return names == rows and rows == places and 1 or 0
