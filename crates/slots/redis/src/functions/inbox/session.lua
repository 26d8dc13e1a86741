-- Who works on an inbox.

-- Whether the session that has an inbox is a later one of the same epoch.
local function is_later(current, session)
  local _, epoch, high, low = struct.unpack('>c16c8I4I4', current, 3)
  local _, other_epoch, other_high, other_low = struct.unpack('>c16c8I4I4', session)
  return epoch == other_epoch and (high > other_high or high == other_high and low > other_low)
end

-- A session without the moment when it was heard of.
local function who(current)
  return current and string.sub(current, 1, 34)
end

-- When a session was heard of, about; versions before this one did not say.
local function heard_at(current)
  return #current >= 42 and struct.unpack('>I8', current, 35) or nil
end

local function keep_session(ns, identity, session)
  redis.call('HSET', ns.at .. 'sessions', identity, session .. struct.pack('>I8', ns.now))
end

-- Whether a session is the consumer, which is heard of with that. It is written down only once the last time is half of
-- `idle` ago, so whoever is forgotten may have been heard of so much later than is written.
local function is_consumer(ns, identity, session)
  local current = session_of(ns, identity)
  if who(current) ~= READY .. session then
    return false
  end
  if (heard_at(current) or 0) + ns.idle / 2 <= ns.now then
    keep_session(ns, identity, READY .. session)
  end
  return true
end

-- Looks at some sessions, from a cursor on, and forgets those that have gone and that nothing waits for. Returns where to
-- go on.
local function forget_sessions(ns, cursor)
  local found = redis.call('HSCAN', ns.at .. 'sessions', cursor, 'COUNT', PAGE)
  for index = 1, #found[2], 2 do
    local identity, current = found[2][index], found[2][index + 1]
    local heard = string.byte(current) == FORMAT and heard_at(current)
    if heard == nil then
      keep_session(ns, identity, who(current))
    elseif heard and heard + ns.idle + ns.idle / 2 <= ns.now and is_empty(ns, identity) then
      redis.call('HDEL', ns.at .. 'sessions', identity)
    end
  end
  return found[1]
end

-- Looks through an inbox from a place on, and finds some of what is wanted. Returns that and, unless it is through,
-- where to go on.
local function look_through(ns, identity, from, wanted)
  local found, looked = {}, 0
  for priority = from ~= '' and priority_of(from) or 1, 3 do
    local after = from ~= '' and priority_of(from) == priority and from or nil
    repeat
      local page = entries_after(ns, identity, priority, after, PAGE)
      for _, entry in ipairs(page) do
        after, looked = entry.place, looked + 1
        found[#found + 1] = wanted(entry.entry) and entry or nil
        if #found >= REMOVE or looked >= LOOK_AT then
          return found, after
        end
      end
    until #page < PAGE
  end
  return found
end

local function places_of(entries)
  local places = {}
  for index, entry in ipairs(entries) do
    places[index] = entry.place
  end
  return places
end

-- Makes dead letters of messages that are in an inbox.
local function bury_all(ns, identity, entries, reason)
  local places = places_of(entries)
  local attempts = attempts_of(ns, identity, places)
  for _, found in ipairs(entries) do
    local books = books_of(ns, multicast_of(found.reference), { identity })
    local _, _, known = waiting(books, identity)
    bury(ns, identity, found, attempts[found.place] or 0, reason)
    leave(ns, books, identity, known or 0)
  end
  take_out(ns, identity, places)
end

-- Whatever a consumer has is due at once.
local function call_back(ns, identity)
  local out, back = ns.at .. 'out:' .. identity, ns.at .. 'back:' .. identity
  if redis.call('EXISTS', out) == 1 then
    redis.call('ZUNIONSTORE', back, 2, out, back, 'WEIGHTS', 0, 1)
    redis.call('UNLINK', out)
  end
end

-- Arguments: an identity, SESSION, and where to go on, empty at first. Adds where to go on, empty when it is done.
-- Until then nobody is the consumer: a message that was stored for somebody else is never handed out.
local function open(ns, args)
  local identity, session, from = args[2], args[3], args[4]
  local current = session_of(ns, identity)
  if from ~= '' and who(current) == READY .. session then
    -- The last step was taken before, and its answer was lost.
    return { 'K', '' }
  end
  if from ~= '' and who(current) ~= OPENING .. session or from == '' and current and is_later(current, session) then
    return { 'N' }
  end
  if from == '' then
    call_back(ns, identity)
  end
  local others, next_place = {}, nil
  if not is_empty(ns, identity) then
    local holder = string.sub(session, 1, 16)
    others, next_place = look_through(ns, identity, from, function(entry)
      return holder_of(entry) ~= holder
    end)
    bury_all(ns, identity, others, OTHER_HOLDER)
  end
  keep_session(ns, identity, (next_place and OPENING or READY) .. session)
  return { 'K', next_place or '' }
end

-- Arguments: an identity, a holder, and where to go on, empty at first. Adds where to go on, and what is told of each
-- message that was dropped.
local function discard(ns, args)
  local identity, holder, from = args[2], args[3], args[4]
  local current = session_of(ns, identity)
  if current and string.sub(current, 3, 18) == holder then
    redis.call('HDEL', ns.at .. 'sessions', identity)
  end
  local own, next_place = look_through(ns, identity, from, function(entry)
    return holder_of(entry) == holder
  end)
  -- Reading a ticket can fail, so all are read before anything is let go.
  local told = {}
  for index, found in ipairs(own) do
    told[index] = told_of(ns, found)
  end
  for _, found in ipairs(own) do
    let_go(ns, identity, found, false)
  end
  take_out(ns, identity, places_of(own))
  return { 'K', next_place or '', unpack(told) }
end
