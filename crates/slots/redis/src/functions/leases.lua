-- Leases: `terms` holds what was granted, `leases` when it ends.

local function bounded(number)
  return math.min(number, LARGEST)
end

-- When a lease really ends, on the lease clock.
local function effective_end(ns, term, deadline)
  return math.max(tonumber(deadline), ns.resumed + struct.unpack('>I8', term))
end

-- The same on the wall clock, if nothing interrupts; 0 without a lease.
local function on_wall(ns, lease_end)
  return lease_end and bounded(ns.seen + lease_end - ns.now) or 0
end

-- The terms of a lease and its end; nothing without one.
local function lease_of(ns, identity)
  local term = redis.call('HGET', ns.keys.terms, identity)
  if term then
    return term, effective_end(ns, term, redis.call('ZSCORE', ns.keys.leases, identity))
  end
end

local function ttl_of(term)
  return term and string.sub(term, 1, 8) or NONE_8
end

-- Gives a lease its full length from now.
local function extend(ns, identity, term)
  local deadline = bounded(ns.now + struct.unpack('>I8', term))
  redis.call('ZADD', ns.keys.leases, deadline, identity)
  return deadline
end

-- Grants, changes or withdraws a lease. Returns its end.
local function grant(ns, identity, ttl, generation, had)
  if ttl == NONE_8 then
    if had then
      redis.call('HDEL', ns.keys.terms, identity)
      redis.call('ZREM', ns.keys.leases, identity)
      ns.leased = ns.leased - 1
    end
    return nil
  end
  local term = ttl .. generation
  if term ~= had then
    redis.call('HSET', ns.keys.terms, identity, term)
  end
  if not had then
    ns.leased = ns.leased + 1
  end
  return extend(ns, identity, term)
end

-- The terms and deadlines of many identities.
local function leases_of(ns, identities, from, to)
  return redis.call('HMGET', ns.keys.terms, unpack(identities, from, to)),
    redis.call('ZMSCORE', ns.keys.leases, unpack(identities, from, to))
end
