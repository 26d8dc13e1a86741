-- The books of a message: which inboxes have it, or had it not long ago. Read once in a call, and written when
-- the call ends.

local function decode_counts(text)
  local counts = {}
  if text then
    local at = 2
    readable(text, 'a message')
    while at <= #text do
      local digest, count
      digest, count, at = struct.unpack(COUNT, text, at)
      counts[digest] = count > 0 and count or nil
    end
  end
  return counts
end

-- `many` are noted with it: Redis makes a table of a hash with a value that long, before it has searched the list that
-- it would be otherwise for each of them.
local function encode_counts(counts, many)
  local parts = {}
  for digest, count in pairs(counts) do
    parts[#parts + 1] = struct.pack(COUNT, digest, count)
  end
  if #parts == 0 then
    return false
  end
  while many and #parts < LONG_COUNTS do
    parts[#parts + 1] = NO_COUNT
  end
  return string.char(FORMAT) .. table.concat(parts)
end

-- The books of a multicast, with what they say of these identities at least.
local function books_of(ns, multicast, identities)
  local books, unknown = ns.books[multicast], identities
  if not books then
    books = { key = ns.at .. 'message:' .. multicast, multicast = multicast, states = {}, noted = {}, notes = 0 }
    ns.books[multicast] = books
  else
    unknown = {}
    for _, identity in ipairs(identities) do
      if books.states[identity] == nil then
        unknown[#unknown + 1] = identity
      end
    end
  end
  if books.counts and #unknown == 0 then
    return books
  end
  for from = 1, math.max(1, #unknown), CHUNK do
    local to = math.min(from + CHUNK - 1, #unknown)
    local found = redis.call('HMGET', books.key, '', unpack(unknown, from, to))
    books.counts = books.counts or decode_counts(found[1])
    for index = from, to do
      local state = found[index - from + 2]
      books.states[unknown[index]] = state and readable(state, 'a message')
    end
  end
  return books
end

-- The place, the digest and until when it is known of a message that waits in an inbox; nothing if it does not.
local function waiting(books, identity)
  local state = books.states[identity]
  if state and string.byte(state, 2) == WAITING then
    local _, _, place, digest, known = struct.unpack(WAITS, state)
    return place, digest, known
  end
end

-- Until when a message that left an inbox is known there.
local function remembered(books, identity)
  local state = books.states[identity]
  if state and string.byte(state, 2) == GONE then
    local _, _, known = struct.unpack(LEFT, state)
    return known
  end
end

local function note(books, identity, state)
  books.states[identity] = state
  books.notes = books.notes + 1
  books.noted[books.notes] = identity
end

-- An inbox has let go of a message; that it had it is known until then.
local function leave(ns, books, identity, known)
  note(books, identity, known > ns.now and struct.pack(LEFT, FORMAT, GONE, known))
end

-- So many more hold a body, or fewer. Without any it is freed.
local function hold(ns, books, digest, more)
  local before, body = books.counts[digest] or 0, ns.at .. 'body:' .. books.multicast .. '-' .. digest
  local count = before + more
  books.counts[digest] = count > 0 and count or nil
  if (before > 0) ~= (count > 0) then
    ns.bodies, ns.changed = ns.bodies + (count > 0 and 1 or -1), true
  end
  books.recounted = true
  ns.freed[body] = count <= 0 or nil
end

local function in_chunks(command, key, values)
  for from = 1, #values, CHUNK do
    redis.call(command, key, unpack(values, from, math.min(from + CHUNK - 1, #values)))
  end
end

local function save_books(ns)
  for _, books in pairs(ns.books) do
    local kept, count, forgotten = {}, 0, {}
    if books.recounted then
      note(books, '', encode_counts(books.counts, books.many))
    end
    for index = books.notes, 1, -1 do
      local identity = books.noted[index]
      local state = books.states[identity]
      if state then
        kept[count + 1], kept[count + 2], count = identity, state, count + 2
      else
        forgotten[#forgotten + 1] = identity
      end
    end
    in_chunks('HSET', books.key, kept)
    in_chunks('HDEL', books.key, forgotten)
  end
  local freed = {}
  for body in pairs(ns.freed) do
    freed[#freed + 1] = body
  end
  for from = 1, #freed, CHUNK do
    redis.call('UNLINK', unpack(freed, from, math.min(from + CHUNK - 1, #freed)))
  end
end

-- The first bytes of a body, which say where word of the message is welcome.
local function ticket_of(ns, reference, size)
  local ticket = ns.tickets[reference]
  if not ticket then
    ticket = redis.call('GETRANGE', ns.at .. 'body:' .. reference, 0, size - 1)
    ns.tickets[reference] = ticket
  end
  return ticket
end

-- Closes the step. Without changes the clock alone is saved a few times a second: what one call does not save,
-- the next one measures anew.
local function finish(ns)
  save_books(ns)
  if ns.changed then
    save(ns)
  end
end
