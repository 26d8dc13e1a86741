-- Dead letters: one stream for all inboxes, kept within a number.

local function letter_id(number)
  return string.format('%.0f-0', number)
end

-- Takes a dead letter out, without letting go of its body.
local function unearth(ns, id, identity)
  redis.call('XDEL', ns.at .. 'dead', id)
  if redis.call('HINCRBY', ns.at .. 'buried', identity, -1) <= 0 then
    redis.call('HDEL', ns.at .. 'buried', identity)
  end
  ns.dead, ns.changed = math.max(0, ns.dead - 1), true
  if ns.dead == 0 then
    redis.call('UNLINK', ns.at .. 'dead')
  end
end

-- Lets go of the oldest beyond the limit, some of them. Returns whether there are more.
local function trim_dead(ns)
  local too_many = ns.dead - ns.max_dead
  if too_many <= 0 then
    return false
  end
  for _, letter in ipairs(redis.call('XRANGE', ns.at .. 'dead', '-', '+', 'COUNT', math.min(too_many, REMOVE))) do
    local fields = letter[2]
    local identity, reference = fields[2], fields[4]
    readable(fields[6], 'a dead letter')
    hold(ns, books_of(ns, multicast_of(reference), {}), string.sub(reference, 34), -1)
    unearth(ns, letter[1], identity)
  end
  return too_many > REMOVE
end

-- Makes a message of an inbox a dead letter. It holds the body from now on.
local function bury(ns, identity, found, attempts, reason, why)
  local _, _, _, size, ticket = struct.unpack(ENTRY, found.entry)
  ns.letter, ns.dead, ns.changed = ns.letter + 1, ns.dead + 1, true
  redis.call('XADD', ns.at .. 'dead', letter_id(ns.letter), 'i', identity, 'm', found.reference,
    'e', struct.pack(DEATH, FORMAT, reason, attempts, ns.now, size, ticket), 'r', why or '')
  redis.call('HINCRBY', ns.at .. 'buried', identity, 1)
  trim_dead(ns)
end
