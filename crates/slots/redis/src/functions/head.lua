-- Where history stands, and how a step begins.

local function decode_head(text)
  local ns, at = {}, nil
  ns.format, ns.epoch, ns.secret, ns.server, ns.revision, ns.records, ns.leased, ns.now, ns.seen,
    ns.resumed, ns.compacted, ns.written, ns.dropped, ns.marks, ns.mark_revision, ns.mark_written,
    ns.mark_now, ns.oldest, ns.hold_revision, ns.hold_until, ns.claims, at = struct.unpack(HEAD, text)
  ns.name = string.sub(text, at)
  return ns
end

local function encode_head(ns)
  return struct.pack(HEAD, FORMAT, ns.epoch, ns.secret, ns.server, ns.revision, ns.records, ns.leased,
    ns.now, ns.seen, ns.resumed, ns.compacted, ns.written, ns.dropped, ns.marks, ns.mark_revision,
    ns.mark_written, ns.mark_now, ns.oldest, ns.hold_revision, ns.hold_until, ns.claims) .. ns.name
end

local function new_head(name, wall)
  return { name = name, server = '', revision = 0, records = 0, leased = 0, now = 0, seen = wall,
    resumed = 0, compacted = 0, written = 0, dropped = 0, marks = 0, mark_revision = 0,
    mark_written = 0, mark_now = 0, oldest = 0, hold_revision = 0, hold_until = 0, claims = 0 }
end

local function save(ns)
  redis.call('SET', ns.keys.head, encode_head(ns))
end

local function wall_clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The names under which this server has served its data set. Not a key: a copy of another server's data set comes with
-- functions of its own, which remember nothing, as they do after a restart.
local served = {}

-- Names the data set that this server serves. It changes on a restart and when a replica is promoted,
-- and that is when acknowledged writes may be missing. Asked on every call: a check per connection
-- would leave a moment between the connecting and the checking.
--
-- It also changes when the first replica comes, and when the last one has been away for `repl-backlog-ttl`. A server that
-- has no name of before then is said to be the one that served under that of `last`, if it has.
local function server_history(last)
  local info = redis.call('INFO', 'replication')
  local _, before = string.find(info, 'master_replid:', 1, true)
  local server = string.sub(info, before + 1, before + 40)
  local is_same = server == last or served[last] and string.find(info, 'second_repl_offset:-1', 1, true)
  served[server] = true
  return server, is_same
end

-- Forgets the changes that are kept. Readers of the feed start over.
local function drop_feed(ns)
  redis.call('UNLINK', ns.keys.feed, ns.keys.marks)
  ns.compacted, ns.dropped = ns.revision, ns.written
  ns.marks, ns.mark_revision, ns.mark_written, ns.mark_now = 0, ns.revision, ns.written, ns.now
  ns.oldest, ns.hold_until = 0, 0
  ns.changed = true
end

-- The lease clock, as in `prism_slot::lease`.
local function tick(ns, wall)
  local gap = wall - ns.seen
  ns.seen = wall
  if gap > 0 then
    ns.now = ns.now + math.min(gap, MAX_STEP)
  end
  if math.abs(gap) > MAX_STEP then
    ns.resumed = ns.now
  end
  if math.abs(gap) >= WORTH_SAVING then
    ns.changed = true
  end
end

-- Checks that what is stored is what was written, and starts a new epoch if history was lost. A key
-- can only differ from what the head says after somebody deleted it, or Redis evicted it.
local function verify(ns, found, epoch, secret)
  local server, is_same = server_history(ns.server)
  local lost = found.records ~= ns.records or found.terms ~= ns.leased or found.leases ~= ns.leased
  if lost then
    redis.call('UNLINK', ns.keys.records, ns.keys.terms, ns.keys.leases)
    ns.records, ns.leased = 0, 0
  end
  ns.changed = server ~= ns.server
  ns.server = server
  if lost or not is_same then
    ns.epoch, ns.secret = epoch, secret
    drop_feed(ns)
  elseif found.feed ~= ns.revision - ns.compacted or found.marks ~= ns.marks then
    drop_feed(ns)
  end
end

-- Opens the step. Returns the namespace, or nothing and the answer that refuses the call.
local function begin(names, common)
  local keys = {
    head = names[1], records = names[2], terms = names[3], leases = names[4], feed = names[5], marks = names[6],
  }
  local head = redis.call('GET', keys.head)
  local found = {
    records = redis.call('HLEN', keys.records),
    terms = redis.call('HLEN', keys.terms),
    leases = redis.call('ZCARD', keys.leases),
    feed = redis.call('XLEN', keys.feed),
    marks = redis.call('LLEN', keys.marks),
  }
  local expected, epoch, secret, max_changes, max_bytes, max_age, at = struct.unpack(COMMON, common)
  local name, wall = string.sub(common, at), wall_clock()
  if head and string.byte(head) ~= FORMAT then
    return nil, { 'V', string.byte(head) }
  end
  local ns = head and decode_head(head) or new_head(name, wall)
  if ns.name ~= name then
    return nil, { 'O', ns.name }
  end
  ns.keys, ns.max_changes, ns.max_bytes, ns.max_age = keys, max_changes, max_bytes, max_age
  ns.segment_changes = math.max(1, math.floor(max_changes / SEGMENTS))
  ns.segment_bytes = math.max(1, math.floor(max_bytes / SEGMENTS))
  ns.segment_age = math.max(1, math.floor(max_age / SEGMENTS))
  ns.may_expire, ns.may_expire_bytes = EXPIRE_RECORDS, EXPIRE_BYTES
  verify(ns, found, epoch, secret)
  tick(ns, wall)
  if expected ~= NONE_8 and expected ~= ns.epoch then
    if ns.changed then
      save(ns)
    end
    return nil, { 'E', ns.epoch }
  end
  return ns
end
