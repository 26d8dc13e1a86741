-- The writes.
--
-- Each takes the arguments of one item and returns its answer, whose first byte says what it is:
-- K done, X already exists, N not found, G stale generation, C conflict, Q quota, A ask again,
-- V a later version's record, F failed.

local function registered(value, written, ends)
  return struct.pack('>c1Bc16I8I8I8', 'K', written, generation_of(value),
    struct.unpack('>I8', value, REVISION_FROM), struct.unpack('>I8', value, REGISTERED_FROM), ends)
end

local function stale(value)
  return 'G' .. generation_of(value)
end

-- Whether one more identity may be registered. The due do not count, so they go first.
local function room_for(ns, most)
  if ns.records < most then
    return nil
  end
  local more = expire_due(ns)
  if ns.records < most then
    return nil
  end
  return more and 'A' or 'Q'
end

-- Makes a new generation. `had` is the term, and `before` the record, that it takes the place of.
local function enrol(ns, identity, ttl, request, owner, metadata, written, had, before)
  local revision = ns.revision + 1
  local value = struct.pack(RECORD, FORMAT, ns.epoch, revision, revision, ns.seen, ns.seen, request, written)
    .. owner .. metadata
  local lease_end = ttl ~= NONE_8 and bounded(ns.now + struct.unpack('>I8', ttl)) or nil
  local ends = on_wall(ns, lease_end)
  local cause = written == WRITTEN_REGISTERED and CAUSE_REGISTERED or CAUSE_REPLACED
  append(ns, cause, identity, ttl, ends, value, before and ttl_of(had) .. before)
  redis.call('HSET', ns.keys.records, identity, value)
  if written == WRITTEN_REGISTERED then
    ns.records = ns.records + 1
  end
  grant(ns, identity, ttl, generation_of(value), had)
  return registered(value, written, ends)
end

-- The session that holds the identity registers it again: a renewal if nothing else is new.
local function repeat_registration(ns, identity, value, term, ttl, request, owner, metadata)
  local same = ttl == ttl_of(term) and string.sub(value, OWNER_FROM + #owner) == metadata
  local revision, updated_at, written = ns.revision + 1, ns.seen, WRITTEN_UPDATED
  if same then
    revision, updated_at = struct.unpack('>I8', value, REVISION_FROM), struct.unpack('>I8', value, UPDATED_FROM)
    written = WRITTEN_RENEWED
  end
  local again = rewritten(value, revision, updated_at, request, written, owner, metadata)
  if not same then
    local lease_end = ttl ~= NONE_8 and bounded(ns.now + struct.unpack('>I8', ttl)) or nil
    append(ns, CAUSE_UPDATED, identity, ttl, on_wall(ns, lease_end), again, ttl_of(term) .. value)
  end
  redis.call('HSET', ns.keys.records, identity, again)
  local lease_end = grant(ns, identity, ttl, generation_of(again), term)
  return registered(again, written, on_wall(ns, lease_end))
end

local function register(ns, head, metadata)
  local _, replace, ttl, most, request, identity, at = struct.unpack('>c1Bc8I8c16I2c0', head)
  local owner = string.sub(head, at)
  local value, term, lease_end = live(ns, identity)
  if not value then
    return room_for(ns, most) or enrol(ns, identity, ttl, request, owner, metadata, WRITTEN_REGISTERED, nil)
  end
  if string.sub(value, REQUEST_FROM, REQUEST_TO) == request then
    return registered(value, string.byte(value, WRITTEN_AT), on_wall(ns, lease_end))
  end
  -- The owner holds its own size, so no longer one can begin with it. Its first byte says whether
  -- there is a session.
  local same_owner = string.sub(value, OWNER_FROM, OWNER_FROM + #owner - 1) == owner
  if same_owner and string.byte(owner) == 1 then
    return repeat_registration(ns, identity, value, term, ttl, request, owner, metadata)
  end
  if replace == 0 then
    return 'X'
  end
  return enrol(ns, identity, ttl, request, owner, metadata, WRITTEN_REPLACED, term, value)
end

local function put(ns, head, metadata)
  local _, generation, if_revision, request, identity = struct.unpack('>c1c16I8c16I2c0', head)
  local value, term, lease_end = live(ns, identity)
  if not value then
    return 'N'
  end
  if generation ~= NONE_16 and generation ~= generation_of(value) then
    return stale(value)
  end
  local owner, ttl, ends = owner_of(value), ttl_of(term), on_wall(ns, lease_end)
  if string.sub(value, REQUEST_FROM, REQUEST_TO) == request then
    return struct.pack('>c1Bc8I8', 'K', 1, ttl, ends) .. value
  end
  local current = struct.unpack('>I8', value, REVISION_FROM)
  if current ~= if_revision then
    return struct.pack('>c1I8', 'C', current)
  end
  local before = ttl .. value
  value = rewritten(value, ns.revision + 1, ns.seen, request, WRITTEN_UPDATED, owner, metadata)
  append(ns, CAUSE_UPDATED, identity, ttl, ends, value, before)
  redis.call('HSET', ns.keys.records, identity, value)
  -- The caller has the metadata.
  return struct.pack('>c1Bc8I8', 'K', 0, ttl, ends) .. string.sub(value, 1, OWNER_FROM + #owner - 1)
end

local function renew(ns, head)
  local _, generation, identity = struct.unpack('>c1c16I2c0', head)
  local term, lease_end = lease_of(ns, identity)
  if not term then
    local value = redis.call('HGET', ns.keys.records, identity)
    if not value then
      return 'N'
    end
    readable(value)
    if generation ~= NONE_16 and generation ~= generation_of(value) then
      return stale(value)
    end
    return struct.pack('>c1c8I8', 'K', NONE_8, 0)
  end
  if lease_end <= ns.now then
    expire(ns, identity, term, lease_end)
    return 'N'
  end
  if generation ~= NONE_16 and generation ~= string.sub(term, 9) then
    return 'G' .. string.sub(term, 9)
  end
  return struct.pack('>c1c8I8', 'K', ttl_of(term), on_wall(ns, extend(ns, identity, term)))
end

local function unregister(ns, head)
  local _, generation, identity = struct.unpack('>c1c16I2c0', head)
  local value, term, lease_end = live(ns, identity)
  if not value then
    return struct.pack('>c1BI8', 'K', 0, ns.revision)
  end
  if generation ~= NONE_16 and generation ~= generation_of(value) then
    return stale(value)
  end
  remove(ns, identity, CAUSE_UNREGISTERED, value, term, lease_end)
  return struct.pack('>c1BI8', 'K', 1, ns.revision)
end

local function claim(ns, head)
  local _, generation, identity = struct.unpack('>c1c16I2c0', head)
  local value = live(ns, identity)
  if not value then
    return 'N'
  end
  if generation ~= NONE_16 and generation ~= generation_of(value) then
    return stale(value)
  end
  ns.claims, ns.changed = ns.claims + 1, true
  return struct.pack('>c1I8', 'K', ns.claims) .. generation_of(value)
end

-- By the first byte of an item's first argument: what to do, and how many arguments it has.
local ITEMS = {
  R = { register, 2 },
  P = { put, 2 },
  W = { renew, 1 },
  U = { unregister, 1 },
  S = { claim, 1 },
}
