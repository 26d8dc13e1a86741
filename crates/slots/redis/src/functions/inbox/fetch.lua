-- Handing messages out.
--
-- Within a priority what was handed out before lies before what never was, unless a consumer put off a message
-- that it was not given. So a cursor says from where on everything is new, and only what came back is looked for.

-- Moves what is due again to where it is found in order.
local function promote(ns, identity)
  local out, back = ns.at .. 'out:' .. identity, ns.at .. 'back:' .. identity
  for _, from in ipairs({ { out, '-inf' }, { back, '(0' } }) do
    local due = redis.call('ZRANGE', from[1], from[2], ns.now, 'BYSCORE', 'LIMIT', 0, PROMOTE)
    if #due > 0 then
      local scored = {}
      for _, place in ipairs(due) do
        scored[#scored + 1], scored[#scored + 2] = 0, place
      end
      redis.call('ZREM', out, unpack(due))
      in_chunks('ZADD', back, scored)
    end
  end
end

-- An inbox as it is when messages are to be handed out of it.
local function box_of(ns, identity)
  local box = { identity = identity, again = { {}, {}, {} }, attempts = {}, cursors = { NOWHERE, NOWHERE, NOWHERE } }
  local cursor = redis.call('HGET', ns.at .. 'tries:' .. identity, 'c')
  if cursor then
    readable(cursor, 'an inbox')
    box.was_read, box.cursors = true, { struct.unpack('>c12c12c12', cursor, 2) }
    promote(ns, identity)
    local back = redis.call('ZRANGE', ns.at .. 'back:' .. identity, 0, 0, 'BYSCORE', 'LIMIT', 0, LOOK_AT)
    box.attempts = attempts_of(ns, identity, back)
    for _, place in ipairs(back) do
      local again = box.again[priority_of(place)]
      again[#again + 1] = place
    end
  end
  return box
end

-- Those that were never handed out or put off.
local function untouched(ns, box, page)
  if not box.was_read or #page == 0 then
    return page
  end
  local attempts, fresh = attempts_of(ns, box.identity, places_of(page)), {}
  for _, found in ipairs(page) do
    fresh[#fresh + 1] = not attempts[found.place] and found or nil
  end
  return fresh
end

local function next_fresh(ns, box, source)
  while source.at > #source.page and source.more do
    local page = entries_after(ns, box.identity, source.priority, source.from, source.count)
    source.more = #page == source.count
    source.from = #page > 0 and page[#page].place or source.from
    source.page, source.at = untouched(ns, box, page), 1
  end
  return source.page[source.at]
end

-- The next message of a priority.
local function next_of(ns, box, source)
  local fresh = next_fresh(ns, box, source)
  while true do
    local place = source.again[source.again_at]
    if not place or fresh and before(fresh.place, place) then
      source.at = source.at + 1
      return fresh, 0
    end
    source.again_at = source.again_at + 1
    local found = entry_at(ns, box.identity, place)
    if found then
      found.came_back = true
      return found, box.attempts[place] or 0
    end
    -- Somebody took it out of the stream by hand.
    take_out(ns, box.identity, { place })
  end
end

-- Sorts what is due into what is handed out, what has expired and what is given up, until enough was found.
local function select_due(ns, box, fetch)
  local bytes, looked = 0, 0
  local chosen, expired, dead = {}, {}, {}
  for priority = 1, ns.counts[1] + ns.counts[2] + ns.counts[3] > 0 and 3 or 0 do
    local cursor = box.cursors[priority]
    local source = {
      priority = priority, again = box.again[priority], again_at = 1, page = {}, at = 1,
      more = ns.counts[priority] > 0, from = cursor ~= NOWHERE and tostring(priority) .. cursor or nil,
      count = math.min(PAGE, fetch.most + 1),
    }
    local found, attempts = next_of(ns, box, source)
    while found do
      local _, _, expires, size = struct.unpack(ENTRY, found.entry)
      looked = looked + 1
      local is_full = #chosen >= fetch.most or #chosen > 0 and bytes + size > fetch.most_bytes
      local is_over = expires <= ns.now or attempts >= fetch.max_deliver
      if looked > LOOK_AT or #expired + #dead >= REMOVE or is_full and not is_over then
        return chosen, expired, dead, true
      end
      if expires <= ns.now then
        expired[#expired + 1] = found
      elseif is_over then
        dead[#dead + 1] = found
      else
        bytes, found.attempt = bytes + size, attempts + 1
        chosen[#chosen + 1] = found
      end
      if not found.came_back then
        box.cursors[priority] = string.sub(found.place, 2)
      end
      found, attempts = next_of(ns, box, source)
    end
  end
  return chosen, expired, dead, false
end

-- Adds the bodies. What has none is lost, and is returned.
local function with_bodies(ns, chosen)
  local whole, lost = {}, {}
  for from = 1, #chosen, CHUNK do
    local to, names = math.min(from + CHUNK - 1, #chosen), {}
    for index = from, to do
      names[#names + 1] = ns.at .. 'body:' .. chosen[index].reference
    end
    for index, body in ipairs(redis.call('MGET', unpack(names))) do
      local found = chosen[from + index - 1]
      found.body = body
      local kind = body and whole or lost
      kind[#kind + 1] = found
    end
  end
  return whole, lost
end

-- Writes down that messages were handed out.
local function note_handed_out(ns, box, chosen, ack_timeout)
  local due, tries, returned = {}, { 'c', CURSOR .. table.concat(box.cursors) }, {}
  for _, found in ipairs(chosen) do
    due[#due + 1], due[#due + 2] = bounded(ns.now + ack_timeout), found.place
    tries[#tries + 1], tries[#tries + 2] = found.place, found.attempt
    returned[#returned + 1] = found.came_back and found.place or nil
  end
  if #chosen > 0 then
    in_chunks('HSET', ns.at .. 'tries:' .. box.identity, tries)
    in_chunks('ZADD', ns.at .. 'out:' .. box.identity, due)
    in_chunks('ZREM', ns.at .. 'back:' .. box.identity, returned)
    ns.changed = true
  end
end

-- In how long the next message is due that is out or was put off.
local function next_due(ns, identity)
  local first
  for _, kind in ipairs({ 'out:', 'back:' }) do
    local due = redis.call('ZRANGE', ns.at .. kind .. identity, '(' .. string.format('%.0f', ns.now), '+inf',
      'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')[2]
    first = due and math.min(first or LARGEST, tonumber(due)) or first
  end
  return first and first - ns.now
end

-- Takes out what is not handed out any more. Adds what is told of it.
local function end_of(ns, identity, answer, dead, expired, lost)
  for _, kind in ipairs({ dead, expired, lost }) do
    for _, found in ipairs(kind) do
      answer[#answer + 1] = told_of(ns, found)
    end
  end
  bury_all(ns, identity, dead, MAX_DELIVER)
  for _, kind in ipairs({ expired, lost }) do
    for _, found in ipairs(kind) do
      let_go(ns, identity, found, true)
    end
    take_out(ns, identity, places_of(kind))
  end
end

-- Arguments: an identity, SESSION; how many messages and bytes at most, after how long they are due again, and how
-- often each is handed out, packed. Adds how many there are of each kind, whether there is more and when the next is
-- due; for each that is handed out its reference and what is known of it, and its body; for each that was given up or
-- expired what is told of it.
local function fetch(ns, args)
  local identity, session = args[2], args[3]
  if not is_consumer(ns, identity, session) then
    return { 'N' }
  end
  if is_empty(ns, identity) then
    return { 'K', struct.pack('>I4I4I4BI8', 0, 0, 0, 0, 0) }
  end
  local most, most_bytes, ack_timeout, max_deliver = struct.unpack('>I8I8I8I8', args[4])
  local box, answer = box_of(ns, identity), { 'K', '' }
  local chosen, expired, dead, more = select_due(ns, box, {
    most = math.min(most, CHUNK), most_bytes = math.min(most_bytes, ANSWER_BYTES), max_deliver = max_deliver,
  })
  local whole, lost = with_bodies(ns, chosen)
  note_handed_out(ns, box, whole, ack_timeout)
  for _, found in ipairs(whole) do
    local time = struct.unpack(PLACE, found.place, 2)
    answer[#answer + 1] = struct.pack('>I8I4', time, found.attempt) .. found.reference
    answer[#answer + 1] = found.body
  end
  end_of(ns, identity, answer, dead, expired, lost)
  local due = #whole > 0 and ack_timeout or nil
  if box.was_read then
    due = next_due(ns, identity)
  end
  answer[2] = struct.pack('>I4I4I4BI8', #whole, #dead, #expired + #lost, more and 1 or 0, due and due + 1 or 0)
  return answer
end
