-- The functions that are called. Each takes COMMON and further arguments, and answers with K and what it found, or
-- with N for a session that is not the consumer, B where it needs the body, V and what a later version wrote, O and
-- the name of another namespace, D and the command that is not allowed, F and what went wrong.

local function call(work)
  return function(keys, args)
    local ns, refused = begin(keys, args[1])
    if not ns then
      return refused
    end
    local done, answer = pcall(work, ns, args)
    finish(ns)
    if done then
      return answer
    end
    local failure = type(answer) == 'table' and answer or { err = answer }
    return failure.answer or { 'F', tostring(failure.err) }
  end
end

local mark_opened = call(function()
  return { 'K' }
end)

-- Checks what the user may do, so that nothing is found missing in the middle of a write.
local function check(keys, args)
  for _, command in ipairs(COMMANDS) do
    if not redis.acl_check_cmd(command, keys[1]) then
      return { 'D', command }
    end
  end
  if not redis.acl_check_cmd('ZUNIONSTORE', keys[1], 1, keys[1]) then
    return { 'D', 'ZUNIONSTORE' }
  end
  return mark_opened(keys, args)
end

-- Arguments: whose, empty for all. Adds how many messages there are, how many of them are out and how many dead
-- letters.
local function depth(ns, args)
  local identity = args[2]
  if identity == '' then
    return { 'K', ns.counts[1] + ns.counts[2] + ns.counts[3], 0, ns.dead }
  end
  local out = redis.call('ZCOUNT', ns.at .. 'out:' .. identity, '(' .. string.format('%.0f', ns.now), '+inf')
  return { 'K', length(ns, identity), out, tonumber(redis.call('HGET', ns.at .. 'buried', identity) or 0) }
end

-- Arguments: from where on to look at sessions, '0' at first. Adds whether it is worth going on at once, from where on to
-- look at the next sessions, and what is told of each message that expired.
local function sweep(ns, args)
  local told = redis.call('LPOP', ns.at .. 'expired', LOOK_AT) or {}
  local is_all = end_due(ns, function(what)
    told[#told + 1] = what
  end)
  local more = not is_all or trim_dead(ns) or redis.call('LLEN', ns.at .. 'expired') > 0
  return { 'K', more and 1 or 0, forget_sessions(ns, args[2]), unpack(told) }
end

-- What frees memory, or needs next to none, goes on when Redis is out of it.
local function when_full(name, callback)
  redis.register_function({ function_name = name, callback = callback, flags = { 'allow-oom' } })
end

redis.register_function('@LIBRARY@_store', call(store))
redis.register_function('@LIBRARY@_redrive', call(redrive))
when_full('@LIBRARY@_open', call(open))
when_full('@LIBRARY@_fetch', call(fetch))
when_full('@LIBRARY@_settle', call(settle))
when_full('@LIBRARY@_cancel', call(cancel))
when_full('@LIBRARY@_discard', call(discard))
when_full('@LIBRARY@_depth', call(depth))
when_full('@LIBRARY@_letters', call(letters))
when_full('@LIBRARY@_sweep', call(sweep))
when_full('@LIBRARY@_check', check)
