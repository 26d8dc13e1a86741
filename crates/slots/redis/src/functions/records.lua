-- Records, live or due.

local function remove(ns, identity, cause, value, term, lease_end)
  append(ns, cause, identity, ttl_of(term), on_wall(ns, lease_end), value)
  redis.call('HDEL', ns.keys.records, identity)
  ns.records = ns.records - 1
  if term then
    grant(ns, identity, NONE_8, nil, term)
  end
end

-- A record written by a later version: not ours to touch.
local function readable(value)
  if string.byte(value) ~= FORMAT then
    error({ answer = 'V' .. string.sub(value, 1, 1) }, 0)
  end
end

-- Whether this call has done enough.
local function tired(ns)
  return ns.may_expire == 0 or ns.may_expire_bytes <= 0
end

local function expire(ns, identity, term, lease_end)
  local value = redis.call('HGET', ns.keys.records, identity)
  if not value then
    return
  end
  readable(value)
  remove(ns, identity, CAUSE_EXPIRED, value, term, lease_end)
  ns.may_expire_bytes = ns.may_expire_bytes - #value
end

-- The record of an identity, its terms and the end of its lease; nothing when absent. One that is due
-- is expired here.
local function live(ns, identity)
  local value = redis.call('HGET', ns.keys.records, identity)
  if not value then
    return nil
  end
  readable(value)
  local term, lease_end = lease_of(ns, identity)
  if term and lease_end <= ns.now then
    remove(ns, identity, CAUSE_EXPIRED, value, term, lease_end)
    return nil
  end
  return value, term, lease_end
end

-- Expires what is due, within what this call may still do. Returns whether something was left.
local function expire_due(ns)
  local due = redis.call('ZRANGE', ns.keys.leases, '-inf', ns.now, 'BYSCORE', 'LIMIT', 0, ns.may_expire + 1)
  for _, identity in ipairs(due) do
    if tired(ns) then
      return true
    end
    ns.may_expire = ns.may_expire - 1
    local term, lease_end = lease_of(ns, identity)
    if lease_end <= ns.now then
      expire(ns, identity, term, lease_end)
    else
      -- Interrupted since it was granted: it comes up again at its new end, and not before.
      redis.call('ZADD', ns.keys.leases, bounded(lease_end), identity)
    end
  end
  return false
end

local function generation_of(value)
  return string.sub(value, GENERATION_FROM, GENERATION_TO)
end

local function owner_of(value)
  local size = struct.unpack('>I4', value, PRINCIPAL_SIZE_FROM)
  return string.sub(value, OWNER_FROM, PRINCIPAL_FROM + size - 1)
end

-- A record of an existing generation, written again at `revision`.
local function rewritten(value, revision, updated_at, request, written, owner, metadata)
  local epoch, from = struct.unpack('>c8I8', value, GENERATION_FROM)
  local registered_at = struct.unpack('>I8', value, REGISTERED_FROM)
  local header = struct.pack(RECORD, FORMAT, epoch, from, revision, registered_at, updated_at, request, written)
  return header .. owner .. metadata
end
