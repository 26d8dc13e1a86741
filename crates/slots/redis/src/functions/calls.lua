-- The functions that are called.
--
-- Each answers with K, the epoch, the last revision and what it found; or with E and the epoch that
-- is not the expected one, V and a later version of the head, O and the name of another namespace, F and
-- what went wrong.

-- Runs one part of a call; says what went wrong instead of ending the call before its head is saved.
local function guarded(work, ns, ...)
  local done, result = pcall(work, ns, ...)
  if done then
    return result
  end
  local failure = type(result) == 'table' and result or { err = result }
  if failure.answer then
    return failure.answer
  end
  -- Perhaps only a part of a change was written: views are to be built from the records again.
  drop_feed(ns)
  return 'F' .. tostring(failure.err)
end

-- Arguments: COMMON, then items. Answer: one string an item, in order.
local function write(keys, args)
  local ns, refused = begin(keys, args[1])
  if not ns then
    return refused
  end
  local answers, at = {}, 2
  while args[at] do
    local item = ITEMS[string.sub(args[at], 1, 1)]
    answers[#answers + 1] = guarded(item[1], ns, args[at], args[at + 1])
    at = at + item[2]
  end
  -- Every item stands on the clock of this step.
  ns.changed = true
  finish(ns)
  return { 'K', ns.epoch, ns.revision, unpack(answers) }
end

-- A call with one part: `work` is given the namespace and the further arguments, and adds to the
-- answer.
local function call(work)
  return function(keys, args)
    local ns, refused = begin(keys, args[1])
    if not ns then
      return refused
    end
    local answer = { 'K', ns.epoch, 0 }
    local failure = guarded(work, ns, answer, args)
    finish(ns)
    answer[3] = ns.revision
    return failure and { 'F', failure } or answer
  end
end

local mark_opened = call(function(ns)
  ns.changed = true
end)

-- Checks what the user may do, so that nothing is found missing in the middle of a write.
local function open(keys, args)
  for index, commands in ipairs(COMMANDS) do
    for _, command in ipairs(commands) do
      if not redis.acl_check_cmd(command, keys[index]) then
        return { 'F', 'D' .. command }
      end
    end
  end
  return mark_opened(keys, args)
end

-- Argument: an identity. Adds its ttl, its end and its record, if it is there.
local function get(ns, answer, args)
  local value, term, lease_end = live(ns, args[2])
  if value then
    answer[4] = struct.pack('>c8I8', ttl_of(term), on_wall(ns, lease_end)) .. value
  end
end

-- Arguments: identities. Adds for each when its lease ends, in one string; for the first of them only
-- when many are due.
local function leases(ns, answer, args)
  local all = {}
  for from = 2, #args, CHUNK do
    local to = math.min(from + CHUNK - 1, #args)
    local terms, deadlines = leases_of(ns, args, from, to)
    for index, term in ipairs(terms) do
      local lease_end = term and effective_end(ns, term, deadlines[index]) or nil
      if lease_end and lease_end <= ns.now then
        if tired(ns) then
          answer[4] = table.concat(all)
          return
        end
        ns.may_expire = ns.may_expire - 1
        expire(ns, args[from + index - 1], term, lease_end)
        lease_end = nil
      end
      all[#all + 1] = struct.pack('>I8', on_wall(ns, lease_end))
    end
  end
  answer[4] = table.concat(all)
end

-- Arguments: a revision and a limit, packed. Adds the last revision that is gone, whether due leases
-- were left, and the changes after the revision; none when it is before the first one that is kept.
local function sync(ns, answer, args)
  local from, limit = struct.unpack('>I8I8', args[2])
  local more = expire_due(ns)
  answer[4], answer[5] = ns.compacted, more and 1 or 0
  if from < ns.compacted or from > ns.revision then
    return
  end
  local bytes, last = 0, from
  while last < ns.revision and limit > 0 and bytes < ANSWER_BYTES do
    local first = string.format('%.0f-0', last + 1)
    local entries = redis.call('XRANGE', ns.keys.feed, first, '+', 'COUNT', math.min(limit, READ_CHANGES))
    if #entries == 0 then
      return
    end
    for _, entry in ipairs(entries) do
      local change = entry[2][2]
      answer[#answer + 1], bytes = change, bytes + #change
    end
    last, limit = last + #entries, limit - #entries
  end
end

-- Arguments: the cursor of HSCAN; how many records, the revision after which the feed is to be kept
-- or 0 for the last one, and for how many milliseconds, packed. Adds the next cursor, the secret, the
-- revision, and for each record its identity and what `get` adds.
local function scan(ns, answer, args)
  local count, hold_revision, hold = struct.unpack('>I8I8I8', args[3])
  if args[2] == '0' then
    hold_revision = ns.revision
  end
  hold_feed(ns, hold_revision, hold)
  -- The size of recent changes tells how many records make an answer of sensible size.
  local size = (ns.written - ns.dropped) / math.max(1, ns.revision - ns.compacted)
  count = math.max(1, math.min(count, math.floor(ANSWER_BYTES / math.max(1, size))))
  local page = redis.call('HSCAN', ns.keys.records, args[2], 'COUNT', string.format('%.0f', count))
  answer[4], answer[5], answer[6] = page[1], ns.secret, hold_revision
  local pairs_of, identities = page[2], {}
  for index = 1, #pairs_of, 2 do
    identities[#identities + 1] = pairs_of[index]
  end
  for from = 1, #identities, CHUNK do
    local terms, deadlines = leases_of(ns, identities, from, math.min(from + CHUNK - 1, #identities))
    for index, term in ipairs(terms) do
      local at = from + index - 1
      local lease_end = term and effective_end(ns, term, deadlines[index]) or nil
      answer[#answer + 1] = identities[at]
      answer[#answer + 1] = struct.pack('>c8I8', ttl_of(term), on_wall(ns, lease_end)) .. pairs_of[2 * at]
    end
  end
end

-- What frees memory, or needs next to none, goes on when Redis is out of it. `relieve` is `write` for
-- items of that kind.
local function when_full(name, callback)
  redis.register_function({ function_name = name, callback = callback, flags = { 'allow-oom' } })
end

redis.register_function('@LIBRARY@_write', write)
when_full('@LIBRARY@_relieve', write)
when_full('@LIBRARY@_open', open)
when_full('@LIBRARY@_get', call(get))
when_full('@LIBRARY@_leases', call(leases))
when_full('@LIBRARY@_sync', call(sync))
when_full('@LIBRARY@_scan', call(scan))
when_full('@LIBRARY@_query', call(query))
