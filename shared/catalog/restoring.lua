-- The epoch of the restoration that was last in a slot of the catalog, for the scripts that a restoration calls
-- (`uses=["restoring"]` puts this text into them).
--
-- A log service may sleep within a restoration, and go on when another one has restored the slot in a later epoch and opened the
-- cluster: what it would put back may have been deleted since. The epoch is set when all rows of the slot are there.

-- Whether the slot was restored in this epoch or a later one.
local function is_restored(epoch_key, epoch)
  return tonumber(redis.call('GET', epoch_key) or 0) >= tonumber(epoch)
end
