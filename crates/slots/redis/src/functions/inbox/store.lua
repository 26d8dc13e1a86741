-- Storing messages.

-- Those of some inboxes that have anything of a priority, as far as can be told by asking for many at once.
local function not_empty(ns, stream, identities)
  local found, names = {}, {}
  for from = 1, #identities, GROUP do
    local to = math.min(from + GROUP - 1, #identities)
    for index = from, to do
      names[index - from + 1] = stream .. identities[index]
    end
    if redis.call('EXISTS', unpack(names, 1, to - from + 1)) > 0 then
      for index = from, to do
        found[#found + 1] = identities[index]
      end
    end
  end
  return found
end

-- Which inboxes have no room, of those that are asked about. What has expired does not count, so that ends first where
-- it matters. Returns for each of them 'full' or, where too much was due, 'again'.
local function without_room(ns, identities)
  local full, answers, some = {}, {}, identities
  if ns.bodies < ns.max_messages then
    -- An inbox has a message once, so there are too few of them to fill one.
    return answers
  elseif ns.counts[1] + ns.counts[3] == 0 and #identities > 1 and ns.max_messages > 0 then
    some = ns.counts[2] > 0 and not_empty(ns, ns.streams[2], identities) or full
  end
  for _, identity in ipairs(some) do
    if length(ns, identity) >= ns.max_messages then
      full[#full + 1] = identity
    end
  end
  if #full > 0 then
    local is_all = end_due(ns, tell_later(ns))
    for _, identity in ipairs(full) do
      if length(ns, identity) >= ns.max_messages then
        answers[identity] = is_all and 'full' or 'again'
      end
    end
  end
  return answers
end

-- The oldest message of the lowest priority.
local function oldest_of(ns, identity)
  for priority = 3, 1, -1 do
    local oldest = entries_after(ns, identity, priority, nil, 1)[1]
    if oldest then
      return oldest
    end
  end
end

-- Takes a message out to make room. Returns what is told of it.
local function displace(ns, identity, oldest)
  local told = told_of(ns, oldest)
  take_out(ns, identity, { oldest.place })
  let_go(ns, identity, oldest, true)
  return told
end

-- What is stored, as it is the same in all inboxes.
local function order_of(ns, packed)
  local priority, ttl, size, ticket, at = struct.unpack('>c1I8I4I2', packed)
  local reference, number = string.sub(packed, at), tonumber(priority)
  local order = {
    priority = number, stream = ns.streams[number], reference = reference, ticket = ticket,
    multicast = multicast_of(reference), digest = string.sub(reference, 34),
    expires = bounded(ns.now + ttl), known = bounded(ns.now + ns.dedupe),
  }
  order.entry = struct.pack('>I8I4I2', order.expires, size, ticket)
  local id, when = next_id(ns)
  order.id, order.place = id, priority .. when
  order.waits = struct.pack(WAITS, FORMAT, WAITING, order.place, order.digest, order.known)
  return order
end

-- Puts a message into one inbox, unless it is or was there; `is_full` says why there is no room, if there is none. The
-- first thing that is written to an inbox is what can fail. Returns a letter, and what had to make room.
local function put_in(ns, books, order, identity, entry, is_full)
  local state, oldest = books.states[identity], nil
  if state and (waiting(books, identity) or remembered(books, identity) > ns.now) then
    return 'D'
  end
  if is_full then
    oldest = ns.drop_oldest and is_full == 'full' and oldest_of(ns, identity)
    if not oldest then
      return is_full == 'full' and 'F' or 'A'
    end
  end
  local added = redis.pcall('XADD', order.stream .. identity, order.id, 'm', order.reference, 'e', entry)
  if type(added) ~= 'string' then
    return 'N'
  end
  note(books, identity, order.waits)
  ns.counts[order.priority] = ns.counts[order.priority] + 1
  if oldest then
    return 'X', displace(ns, identity, oldest)
  end
  return 'S'
end

-- Arguments: the priority, how long it lives, the sizes of the payload and of the ticket, packed, and the reference;
-- the body, empty where it is taken to be here; FORMAT with the holder of all inboxes, or that of each in turn; then the
-- identities. Adds a letter for each inbox: S stored, X stored in place of another one, D it is or was there, F full, A to be asked again,
-- N the stream does not take it; and what had to make room. Answers B, and stores nothing, where the body is not here.
local function store(ns, args)
  local order, body, held, identities, last = order_of(ns, args[2]), args[3], args[4], {}, #args - 4
  for index = 1, last do
    identities[index] = args[index + 4]
  end
  local entry = #held == HELD and held .. order.entry
  local full = without_room(ns, identities)
  local books = books_of(ns, order.multicast, identities)
  local is_here = books.counts[order.digest]
  if not is_here and body == '' then
    return { 'B' }
  end
  local letters, displaced, stored, count = {}, {}, {}, 0
  for index = 1, last do
    local identity = identities[index]
    local of_this = entry or string.sub(held, HELD * (index - 1) + 1, HELD * index) .. order.entry
    local letter, told = put_in(ns, books, order, identity, of_this, full[identity])
    letters[index] = letter
    if told then
      displaced[#displaced + 1] = told
    end
    if letter == 'S' or letter == 'X' then
      count = count + 1
      stored[count] = identity
    end
  end
  if count > 0 then
    if not is_here then
      redis.call('SET', ns.at .. 'body:' .. order.reference, body)
    end
    hold(ns, books, order.digest, count)
    books.many = count > MANY
    schedule(ns, order.place, order.reference, order.ticket, order.expires, order.known, stored,
      math.min(order.expires, order.known))
  end
  return { 'K', table.concat(letters), unpack(displaced) }
end
