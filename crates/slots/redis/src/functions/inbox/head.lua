-- Where a namespace stands, and how a step begins and ends.

-- A head as it is now from one of the version before, which ended, at byte 69, with the number of the next letter and did
-- not count bodies: they are no more than what holds them.
local function brought_up(text)
  local high, normal, low, dead = struct.unpack('>I8I8I8I8', text, 30)
  return string.char(HEAD_FORMAT) .. string.sub(text, 2, 69)
    .. struct.pack('>I8', high + normal + low + dead) .. string.sub(text, 70)
end

local function decode_head(text)
  local ns, at = { counts = {} }, nil
  ns.format, ns.now, ns.seen, ns.id_time, ns.id_number, ns.counts[1], ns.counts[2], ns.counts[3], ns.dead, ns.letter,
    ns.bodies, at = struct.unpack(HEAD, text)
  ns.name = string.sub(text, at)
  return ns
end

local function save(ns)
  if ns.counts[1] + ns.counts[2] + ns.counts[3] + ns.dead == 0 then
    -- One that was brought up has counted too many.
    ns.bodies = 0
  end
  redis.call('SET', ns.at .. 'head', struct.pack(HEAD, HEAD_FORMAT, ns.now, ns.seen, ns.id_time, ns.id_number,
    ns.counts[1], ns.counts[2], ns.counts[3], ns.dead, ns.letter, ns.bodies) .. ns.name)
end

local function new_head(name, wall)
  return {
    name = name, now = wall, seen = wall, id_time = 0, id_number = 0, counts = { 0, 0, 0 }, dead = 0, letter = 0,
    bodies = 0, changed = true,
  }
end

-- The clock is the server's, except that it never goes back: when the server's does, it goes on from where it is.
local function tick(ns, wall)
  local gap = wall - ns.seen
  ns.seen = wall
  if gap > 0 then
    ns.now = ns.now + gap
  end
  if gap < 0 or gap >= WORTH_SAVING then
    ns.changed = true
  end
end

-- Opens the step. Returns the namespace, or nothing and the answer that refuses the call.
local function begin(keys, common)
  local head, time = redis.call('GET', keys[1]), redis.call('TIME')
  if head and string.byte(head) == HEAD_FORMAT - 1 then
    head = brought_up(head)
  elseif head and string.byte(head) ~= HEAD_FORMAT then
    return nil, { 'V', 'the namespace' }
  end
  local max_messages, drop_oldest, dedupe, max_dead, idle, at = struct.unpack(COMMON, common)
  local name, wall = string.sub(common, at), time[1] * 1000 + math.floor(time[2] / 1000)
  local ns = head and decode_head(head) or new_head(name, wall)
  if ns.name ~= name then
    return nil, { 'O', ns.name }
  end
  ns.max_messages, ns.drop_oldest, ns.dedupe, ns.max_dead = max_messages, drop_oldest == 1, dedupe, max_dead
  ns.idle = idle
  ns.at = string.sub(keys[1], 1, -5)
  ns.streams = { ns.at .. 'high:', ns.at .. 'normal:', ns.at .. 'low:' }
  ns.books, ns.freed, ns.tickets, ns.may_end = {}, {}, {}, EXPIRE
  tick(ns, wall)
  return ns
end

-- The id of what is stored next, as streams have it and as places do. Later than all before it, also when
-- the clock stands.
local function next_id(ns)
  if ns.now > ns.id_time then
    ns.id_time, ns.id_number = ns.now, 0
  else
    ns.id_number = ns.id_number + 1
  end
  ns.changed = true
  return string.format('%.0f-%.0f', ns.id_time, ns.id_number), struct.pack(PLACE, ns.id_time, ns.id_number)
end

local function place_of(priority, id)
  local time, number = string.match(id, '^(%d+)-(%d+)$')
  return priority .. struct.pack(PLACE, time, number)
end

local function id_of(place)
  return string.format('%.0f-%.0f', struct.unpack(PLACE, place, 2))
end

local function priority_of(place)
  return string.byte(place) - 48
end

-- Whether one place comes before another one of the same priority.
local function before(place, other)
  local time, number = struct.unpack(PLACE, place, 2)
  local other_time, other_number = struct.unpack(PLACE, other, 2)
  return time < other_time or time == other_time and number < other_number
end
