-- Dead letters, listed and put back.

local function letter_of(found)
  local fields = found[2]
  return { id = found[1], identity = fields[2], reference = fields[4], entry = readable(fields[6], 'a dead letter'), why = fields[8] }
end

-- Arguments: after which number and how many, packed; for whom, empty for everybody. Adds the last number that was looked
-- at and whether there are more after it; for each dead letter what is known of it, and its body.
local function letters(ns, args)
  local after, most = struct.unpack('>I8I8', args[2])
  local whose, looked, bytes = args[3], 0, 0
  local answer = { 'K', 0, 0 }
  while true do
    local page = redis.call('XRANGE', ns.at .. 'dead', '(' .. letter_id(after), '+', 'COUNT', PAGE)
    for _, found in ipairs(page) do
      if #answer >= 3 + 2 * most or looked >= LOOK_AT or bytes >= ANSWER_BYTES then
        answer[2], answer[3] = after, 1
        return answer
      end
      local letter = letter_of(found)
      after, looked = tonumber(string.match(letter.id, '^%d+')), looked + 1
      if whose == '' or whose == letter.identity then
        local _, reason, attempts, died_at = struct.unpack(DEATH, letter.entry)
        local body = redis.call('GET', ns.at .. 'body:' .. letter.reference) or ''
        answer[#answer + 1] = struct.pack('>I8BI4I8I2', after, reason, attempts, died_at, #letter.identity)
          .. letter.identity .. letter.reference .. letter.why
        answer[#answer + 1], bytes = body, bytes + #body
      end
    end
    if #page < PAGE then
      answer[2] = after
      return answer
    end
  end
end

-- Puts one dead letter back, if it is there and for whom it is said to be, and there is room. Nothing where that
-- cannot be decided in this call.
local function put_in_again(ns, number, identity, holder, priority, ttl)
  local id = letter_id(number)
  local found = redis.call('XRANGE', ns.at .. 'dead', id, id)[1]
  local letter = found and letter_of(found)
  if not letter or letter.identity ~= identity then
    return 'G'
  end
  local _, _, _, _, size, ticket = struct.unpack(DEATH, letter.entry)
  local books = books_of(ns, multicast_of(letter.reference), { identity })
  local digest = string.sub(letter.reference, 34)
  if waiting(books, identity) then
    -- It was stored anew meanwhile: it waits there, and once is enough.
    unearth(ns, id, identity)
    hold(ns, books, digest, -1)
    return 'B'
  end
  local is_full = without_room(ns, { identity })[identity]
  if is_full then
    return is_full == 'full' and 'F' or nil
  end
  local entry_id, when = next_id(ns)
  local place, expires, known = priority .. when, bounded(ns.now + ttl), bounded(ns.now + ns.dedupe)
  redis.call('XADD', ns.streams[tonumber(priority)] .. identity, entry_id, 'm', letter.reference,
    'e', holder .. struct.pack('>I8I4I2', expires, size, ticket))
  note(books, identity, struct.pack(WAITS, FORMAT, WAITING, place, digest, known))
  ns.counts[tonumber(priority)] = ns.counts[tonumber(priority)] + 1
  schedule(ns, place, letter.reference, ticket, expires, known, { identity }, math.min(expires, known))
  unearth(ns, id, identity)
  return 'B'
end

-- Arguments: the priority and how long it lives, packed; for each dead letter its number and FORMAT with the holder,
-- packed, and the identity. Adds a letter for each: B back, G gone, F full; for the first of them only, where too much
-- has to expire before the next is decided.
local function redrive(ns, args)
  local priority, ttl = struct.unpack('>c1I8', args[2])
  local answers = {}
  for index = 3, #args do
    local number, holder, at = struct.unpack('>I8c17', args[index])
    local answer = put_in_again(ns, number, string.sub(args[index], at), holder, priority, ttl)
    if not answer then
      break
    end
    answers[#answers + 1] = answer
  end
  return { 'K', table.concat(answers) }
end
