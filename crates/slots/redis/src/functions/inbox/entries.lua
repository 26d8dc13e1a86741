-- One inbox: its streams, and what was handed out of them.

-- How many messages are in an inbox. A priority of which the namespace has nothing is not asked for.
local function length(ns, identity)
  local sum = 0
  for priority = 1, 3 do
    if ns.counts[priority] > 0 then
      sum = sum + redis.call('XLEN', ns.streams[priority] .. identity)
    end
  end
  return sum
end

local function is_empty(ns, identity)
  return redis.call('EXISTS', ns.streams[1] .. identity, ns.streams[2] .. identity, ns.streams[3] .. identity) == 0
end

-- What a stream has after a place, in order; from the beginning without one.
local function entries_after(ns, identity, priority, place, count)
  local from = place and '(' .. id_of(place) or '-'
  local found = redis.call('XRANGE', ns.streams[priority] .. identity, from, '+', 'COUNT', count)
  for index, entry in ipairs(found) do
    local fields = entry[2]
    found[index] = {
      place = place_of(priority, entry[1]), reference = fields[2], entry = readable(fields[4], 'an inbox'),
    }
  end
  return found
end

local function entry_at(ns, identity, place)
  local id = id_of(place)
  local found = redis.call('XRANGE', ns.streams[priority_of(place)] .. identity, id, id)[1]
  if found then
    return { place = place, reference = found[2][2], entry = readable(found[2][4], 'an inbox') }
  end
end

local function multicast_of(reference)
  return string.sub(reference, 1, 32)
end

local function holder_of(entry)
  return string.sub(entry, 2, 17)
end

-- What is told of a message that did not leave an inbox by somebody's verdict.
local function told_of(ns, found)
  local _, _, _, _, ticket = struct.unpack(ENTRY, found.entry)
  return multicast_of(found.reference) .. ticket_of(ns, found.reference, ticket)
end

-- Takes messages out of an inbox, whatever became of them: of one inbox, and no more than fit one command.
local function take_out(ns, identity, places)
  if #places == 0 then
    return
  end
  local ids = { {}, {}, {} }
  for _, place in ipairs(places) do
    local of_priority = ids[priority_of(place)]
    of_priority[#of_priority + 1] = id_of(place)
  end
  local left, drained = 0, {}
  for priority, gone in ipairs(ids) do
    local stream = ns.streams[priority] .. identity
    if #gone > 0 then
      ns.counts[priority] = math.max(0, ns.counts[priority] - redis.call('XDEL', stream, unpack(gone)))
    end
    local size = (#gone > 0 or ns.counts[priority] > 0) and redis.call('XLEN', stream) or 0
    left = left + size
    drained[#drained + 1] = #gone > 0 and size == 0 and stream or nil
  end
  ns.changed = true
  local tries, out, back = ns.at .. 'tries:' .. identity, ns.at .. 'out:' .. identity, ns.at .. 'back:' .. identity
  if left == 0 then
    redis.call('UNLINK', tries, out, back, unpack(drained))
    return
  elseif #drained > 0 then
    redis.call('UNLINK', unpack(drained))
  end
  if redis.call('HDEL', tries, unpack(places)) > 0 then
    redis.call('ZREM', out, unpack(places))
    redis.call('ZREM', back, unpack(places))
    -- Where nothing was handed out, everything is still to be.
    if redis.call('HLEN', tries) == 1 then
      redis.call('UNLINK', tries)
    end
  end
end

-- Lets go of a message that was in an inbox. `is_known`: storing it again is noticed for as long as was said.
local function let_go(ns, identity, found, is_known)
  local books = books_of(ns, multicast_of(found.reference), { identity })
  local _, _, known = waiting(books, identity)
  leave(ns, books, identity, is_known and known or 0)
  hold(ns, books, string.sub(found.reference, 34), -1)
end

-- How often each of these was handed out.
local function attempts_of(ns, identity, places)
  local attempts = {}
  for from = 1, #places, CHUNK do
    local to = math.min(from + CHUNK - 1, #places)
    local found = redis.call('HMGET', ns.at .. 'tries:' .. identity, unpack(places, from, to))
    for index = from, to do
      attempts[places[index]] = tonumber(found[index - from + 1])
    end
  end
  return attempts
end

-- The session that works on an inbox, as it is stored.
local function session_of(ns, identity)
  local session = redis.call('HGET', ns.at .. 'sessions', identity)
  return session and readable(session, 'a session')
end
