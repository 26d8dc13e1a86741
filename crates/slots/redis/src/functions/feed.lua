-- The change feed: one entry a revision, kept within limits.

local function mark(ns)
  redis.call('RPUSH', ns.keys.marks, struct.pack(MARK, ns.revision, ns.written, ns.now))
  ns.mark_revision, ns.mark_written, ns.mark_now = ns.revision, ns.written, ns.now
  if ns.marks == 0 then
    ns.oldest = ns.now
  end
  ns.marks, ns.changed = ns.marks + 1, true
end

-- Adds the next revision to the feed. `ends` is on the wall clock, 0 without a lease. `before` is the ttl and
-- the value of the record that `value` takes the place of, if there is one.
local function append(ns, cause, identity, ttl, ends, value, before)
  local revision = ns.revision + 1
  before = before or ''
  local change = struct.pack(CHANGE, FORMAT, cause, revision, ttl, ends, #identity, #before)
    .. identity .. before .. value
  local id = string.format('%.0f-0', revision)
  if type(redis.pcall('XADD', ns.keys.feed, id, 'c', change)) == 'table' then
    -- A stream that refuses the next revision has later ones: it is not this head's.
    drop_feed(ns)
    redis.call('XADD', ns.keys.feed, id, 'c', change)
  end
  ns.revision, ns.written, ns.changed = revision, ns.written + #change, true
  if revision - ns.mark_revision >= ns.segment_changes or ns.written - ns.mark_written >= ns.segment_bytes then
    mark(ns)
  end
end

local function outgrown(ns, factor)
  return ns.revision - ns.compacted > ns.max_changes * factor or ns.written - ns.dropped > ns.max_bytes * factor
end

-- Keeps the changes after `revision` for a while. There is one hold for all who ask: the earliest start,
-- the latest end.
local function hold_feed(ns, revision, millis)
  if millis == 0 then
    return
  end
  local holding = ns.hold_until > ns.now
  ns.hold_revision = holding and math.min(ns.hold_revision, revision) or revision
  ns.hold_until, ns.changed = math.max(ns.hold_until, ns.now + millis), true
end

-- Cuts the feed to its limits, exactly up to a mark: `compacted` must be the last one that is gone.
local function trim(ns)
  if ns.revision > ns.mark_revision and ns.now - ns.mark_now >= ns.segment_age then
    mark(ns)
  end
  local before = ns.compacted
  for _ = 1, TRIM_MARKS do
    local aged = ns.now - ns.oldest >= ns.max_age
    if ns.marks == 0 or not (aged or outgrown(ns, 1)) then
      break
    end
    local revision, written = struct.unpack(MARK, redis.call('LINDEX', ns.keys.marks, 0))
    local held = ns.hold_until > ns.now and revision > ns.hold_revision
    if held and not outgrown(ns, HOLD_FACTOR) then
      break
    end
    redis.call('LPOP', ns.keys.marks)
    ns.compacted, ns.dropped, ns.marks = revision, written, ns.marks - 1
    local next_mark = redis.call('LINDEX', ns.keys.marks, 0)
    if next_mark then
      ns.oldest = struct.unpack('>I8', next_mark, 17)
    end
  end
  if ns.compacted > before then
    redis.call('XTRIM', ns.keys.feed, 'MINID', string.format('%.0f-0', ns.compacted + 1))
    ns.changed = true
  end
end

-- Closes the step. Without changes the clock alone is saved a few times a second: what one call does
-- not save, the next one measures anew.
local function finish(ns)
  trim(ns)
  if ns.changed then
    save(ns)
  end
end
