-- What ends by itself: messages, and the memory of those that left.

-- Has messages that were stored in one step looked at when the first thing about them ends.
local function schedule(ns, place, reference, ticket, expires, known, identities, at)
  local list = struct.pack(LIST, FORMAT, place, expires, known, ticket) .. reference .. table.concat(identities, '\n')
  redis.call('ZADD', ns.at .. 'ends', at, list)
end

-- What is told of a message that ended by itself.
local function word(identity, multicast, ticket)
  return struct.pack('>I2', #identity) .. identity .. multicast .. ticket
end

-- Ends what is due of a list. Returns what it has cost.
local function end_some(ns, list, tell)
  readable(list, 'an end')
  local _, place, expires, known, ticket, at = struct.unpack(LIST, list)
  local reference, identities, cost = string.sub(list, at, at + 48), {}, 0
  for identity in string.gmatch(string.sub(list, at + 49), '[^\n]+') do
    identities[#identities + 1] = identity
  end
  local books, left, next_end = books_of(ns, multicast_of(reference), identities), {}, LARGEST
  for _, identity in ipairs(identities) do
    local waits_at, digest, waits_known = waiting(books, identity)
    if waits_at == place and expires <= ns.now then
      tell(word(identity, books.multicast, ticket_of(ns, reference, ticket)))
      take_out(ns, identity, { place })
      leave(ns, books, identity, waits_known)
      hold(ns, books, digest, -1)
      waits_at, cost = nil, cost + 1
    end
    local until_then = remembered(books, identity)
    if waits_at == place then
      left[#left + 1], next_end = identity, math.min(next_end, expires)
    elseif until_then and until_then <= ns.now then
      note(books, identity, false)
    elseif until_then == known then
      left[#left + 1], next_end = identity, math.min(next_end, known)
    end
  end
  redis.call('ZREM', ns.at .. 'ends', list)
  if #left > 0 then
    schedule(ns, place, reference, ticket, expires, known, left, next_end)
  end
  return cost + SCAN_COST * (#identities + 8)
end

-- Ends what is due, within what one call does. Returns whether that was all.
local function end_due(ns, tell)
  while ns.may_end > 0 do
    local due = redis.call('ZRANGE', ns.at .. 'ends', '-inf', ns.now, 'BYSCORE', 'LIMIT', 0, 4)
    if #due == 0 then
      return true
    end
    for _, list in ipairs(due) do
      if ns.may_end > 0 then
        ns.may_end = ns.may_end - end_some(ns, list, tell)
      end
    end
  end
  return false
end

-- Has the next sweep tell.
local function tell_later(ns)
  return function(what)
    redis.call('RPUSH', ns.at .. 'expired', what)
  end
end
