-- What consumers and senders say of messages that wait.

-- Has a message come again.
local function put_back(ns, identity, place, delay)
  redis.call('ZREM', ns.at .. 'out:' .. identity, place)
  redis.call('ZADD', ns.at .. 'back:' .. identity, bounded(ns.now + delay), place)
  ns.changed = true
end

-- Arguments: an identity, SESSION; for each verdict its kind, the multicast and a delay, packed, and a reason. Adds
-- a letter for each: D done, G gone.
local function settle(ns, args)
  local identity, session = args[2], args[3]
  if not is_consumer(ns, identity, session) then
    return { 'N' }
  end
  local letters, places = {}, {}
  for index = 4, #args do
    local kind, multicast, delay, at = struct.unpack('>c1c32I8', args[index])
    local books = books_of(ns, multicast, { identity })
    local place, digest, known = waiting(books, identity)
    local attempts = place and attempts_of(ns, identity, { place })[place]
    -- Nothing can be said of what never was handed out.
    place = attempts and attempts > 0 and place
    letters[#letters + 1] = place and 'D' or 'G'
    if place and (kind == 'N' or kind == 'R') then
      put_back(ns, identity, place, delay)
      if kind == 'R' then
        redis.call('HINCRBY', ns.at .. 'tries:' .. identity, place, -1)
      end
    elseif place then
      local found = kind == 'T' and entry_at(ns, identity, place)
      if found then
        bury(ns, identity, found, attempts, TERMINATED, string.sub(args[index], at))
      else
        hold(ns, books, digest, -1)
      end
      leave(ns, books, identity, known)
      places[#places + 1] = place
    end
  end
  take_out(ns, identity, places)
  return { 'K', table.concat(letters) }
end

-- Arguments: a multicast, identities. Adds a letter for each: C cancelled, O not there or out.
local function cancel(ns, args)
  local multicast, identities, letters = args[2], { unpack(args, 3) }, {}
  local books = books_of(ns, multicast, identities)
  for index, identity in ipairs(identities) do
    local place, digest, known = waiting(books, identity)
    local due = place and redis.call('ZSCORE', ns.at .. 'out:' .. identity, place)
    local is_free = place and not (due and tonumber(due) > ns.now)
    if is_free then
      take_out(ns, identity, { place })
      leave(ns, books, identity, known)
      hold(ns, books, digest, -1)
    end
    letters[index] = is_free and 'C' or 'O'
  end
  return { 'K', table.concat(letters) }
end
