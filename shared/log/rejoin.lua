#!lua flags=allow-oom
-- Gives a state that lost fields back what the streams of its shards say. allow-oom: what is small is never refused.
--
-- KEYS   1    state_key   state hash of the collection
--        2..  streams     of its shards, in their order
-- ARGV   1..  shards      their numbers
--
-- {end_position, streams, {field, ..}}
--                           the end of the newest append in any stream, 0 where all are empty; how many are not empty; the fields
--                           that were missing
--
-- Only fields that are missing are written: newest entry and chain of each stream, operations and bytes that were added to it and
-- trimmed from it in total, up to where, and the backlog. They make no collection of it: the head is missing still.

local FIRST_STREAM = 2
local state_key = KEYS[1]
local missing = {}
local function fill(field, value)
  if redis.call('HSETNX', state_key, field, value) == 1 then missing[#missing + 1] = field end
end
local function values_of(entry)
  local _, pairs_in_order = unpack(entry)
  local values = {}
  for i = 1, #pairs_in_order, 2 do values[pairs_in_order[i]] = pairs_in_order[i + 1] end
  return values
end

local end_position, filled, backlog_ops, backlog_bytes = 0, 0, 0, 0
for i, shard in ipairs(ARGV) do
  local stream_key = KEYS[FIRST_STREAM + i - 1]
  local newest = unpack(redis.call('XREVRANGE', stream_key, '+', '-', 'COUNT', 1))
  if newest then
    local oldest = unpack(redis.call('XRANGE', stream_key, '-', '+', 'COUNT', 1))
    local last, first = values_of(newest), values_of(oldest)
    local ops, bytes = string.match(last.c, '^(%d+) (%d+)$')
    local ops_then, bytes_then = string.match(first.c, '^(%d+) (%d+)$')
    local trimmed_ops, trimmed_bytes = ops_then - tonumber(first.n), bytes_then - #first.d
    local newest_id = unpack(newest)
    fill('tail:' .. shard, newest_id)
    if last.h then fill('chain:' .. shard, last.h) end
    fill('ops:' .. shard, ops)
    fill('bytes:' .. shard, bytes)
    if first.p ~= '0-0' then
      fill('trimmed_ops:' .. shard, string.format('%d', trimmed_ops))
      fill('trimmed_bytes:' .. shard, string.format('%d', trimmed_bytes))
      -- At least up to behind the entry before. Not up to the oldest one: no manifest may cover what lies in between.
      fill('trimmed:' .. shard, string.format('%d', string.match(first.p, '^%d+') + 1))
    end
    end_position, filled = math.max(end_position, tonumber(last.e)), filled + 1
    backlog_ops, backlog_bytes = backlog_ops + ops - trimmed_ops, backlog_bytes + bytes - trimmed_bytes
  else
    -- Everything was trimmed: what was added is what was trimmed, and a new chain begins.
    local tail, ops, bytes, trimmed_ops, trimmed_bytes = unpack(
      redis.call('HMGET', state_key, 'tail:' .. shard, 'ops:' .. shard, 'bytes:' .. shard, 'trimmed_ops:' .. shard,
                 'trimmed_bytes:' .. shard))
    if tail or ops or bytes then
      fill('tail:' .. shard, '0-0')
      fill('ops:' .. shard, trimmed_ops or '0')
      fill('bytes:' .. shard, trimmed_bytes or '0')
      if trimmed_ops then
        local last_tail = redis.call('HGET', state_key, 'tail:' .. shard)
        fill('trimmed:' .. shard, string.format('%d', string.match(last_tail, '^%d+') + 1))
      end
    end
  end
  -- A chain that began anew behind what was trimmed: nothing is looked for before it.
  if redis.call('HEXISTS', state_key, 'trimmed_ops:' .. shard) == 1 then fill('trimmed:' .. shard, '1') end
end
fill('backlog_ops', string.format('%d', backlog_ops))
fill('backlog_bytes', string.format('%d', backlog_bytes))
return {end_position, filled, missing}
