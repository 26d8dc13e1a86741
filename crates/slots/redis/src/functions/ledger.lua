#!lua name=@LIBRARY@

-- The ledger of one namespace, as functions. Redis runs one at a time, so each call is one step.
--
-- The keys, all under one hash tag and behind `:ledger:`:
--
--   head          string      the last version that was given (HEAD, then the namespace's name)
--   entry:<key>   string      ENTRY and the body; ends by itself
--   keys          sorted set  all keys, in the order of their bytes
--   ends          sorted set  all keys, by when they end
--
-- A key may be in the sorted sets a while after its entry has ended: that is looked up, and every write removes
-- more of those than it adds.

local FORMAT = 1
local HEAD = '>BI8'
local ENTRY = '>BI8'
local ENTRY_SIZE = 9
-- How much one call does.
local ANSWER_BYTES, LOOK_AT, TIDY = 1024 * 1024, 512, 4

local COMMANDS = { 'GET', 'SET', 'GETRANGE', 'EXISTS', 'UNLINK', 'TIME', 'ZADD', 'ZREM', 'ZRANGE' }

local function begin(keys, name)
  local head, time = redis.call('GET', keys[1]), redis.call('TIME')
  local ledger = { at = string.sub(keys[1], 1, -5), name = name, micros = time[1] * 1000000 + time[2], version = 0 }
  if head then
    local format, version, at = struct.unpack(HEAD, head)
    if format ~= FORMAT then
      return nil, { 'V', 'the ledger' }
    elseif string.sub(head, at) ~= name then
      return nil, { 'O', string.sub(head, at) }
    end
    ledger.version = version
  end
  ledger.now = math.floor(ledger.micros / 1000)
  return ledger
end

-- Greater than all before, also than those that a server gave whose last writes were lost.
local function next_version(ledger)
  ledger.version, ledger.changed = math.max(ledger.version + 1, ledger.micros), true
  return ledger.version
end

local function entry_of(ledger, key)
  return ledger.at .. 'entry:' .. key
end

local function forget(ledger, key)
  redis.call('ZREM', ledger.at .. 'keys', key)
  redis.call('ZREM', ledger.at .. 'ends', key)
end

-- Forgets the keys of some entries that have ended.
local function tidy(ledger, most)
  for _, key in ipairs(redis.call('ZRANGE', ledger.at .. 'ends', '-inf', ledger.now, 'BYSCORE', 'LIMIT', 0, most)) do
    if redis.call('EXISTS', entry_of(ledger, key)) == 0 then
      forget(ledger, key)
    else
      redis.call('ZADD', ledger.at .. 'ends', ledger.now + 1000, key)
    end
  end
end

-- Whether what is expected of an entry holds. The version is all that has to be read.
local function holds(kind, version, start)
  if kind == '*' then
    return true
  elseif start == '' then
    return kind == '-'
  end
  local format, current = struct.unpack(ENTRY, start)
  if format ~= FORMAT then
    error({ answer = 'V' }, 0)
  end
  return kind == '=' and current == version
end

-- One write. D and the version when it is done, C and the entry when it is not.
local function write_one(ledger, head, body)
  local kind, version, ttl, has_body, at = struct.unpack('>c1I8I8B', head)
  local key = string.sub(head, at)
  local entry = entry_of(ledger, key)
  if not holds(kind, version, redis.call('GETRANGE', entry, 0, ENTRY_SIZE - 1)) then
    return 'C' .. (redis.call('GET', entry) or '')
  end
  if has_body == 0 then
    redis.call('UNLINK', entry)
    forget(ledger, key)
    return 'D' .. struct.pack('>I8', 0)
  end
  local given = next_version(ledger)
  redis.call('ZADD', ledger.at .. 'keys', 0, key)
  redis.call('ZADD', ledger.at .. 'ends', ledger.now + ttl, key)
  redis.call('SET', entry, struct.pack(ENTRY, FORMAT, given) .. body, 'PX', ttl)
  return 'D' .. struct.pack('>I8', given)
end

-- Arguments: the namespace; for each write what is expected, the version, the ttl and whether it has a body, packed, and
-- the key; and the body. The keys after the first are those of the entries. Adds what became of each.
local function write(keys, args)
  local ledger, refused = begin(keys, args[1])
  if not ledger then
    return refused
  end
  local answer = { 'K' }
  for index = 2, #args, 2 do
    local done, result = pcall(write_one, ledger, args[index], args[index + 1])
    if not done then
      result = type(result) == 'table' and (result.answer or 'F' .. tostring(result.err)) or 'F' .. tostring(result)
    end
    answer[#answer + 1] = result
  end
  tidy(ledger, TIDY * #args)
  if ledger.changed then
    redis.call('SET', keys[1], struct.pack(HEAD, FORMAT, ledger.version) .. ledger.name)
  end
  return answer
end

-- The keys are those of the entries, behind the first. Adds for each what is there, empty for nothing; for the first of
-- them only where they are large.
local function read(keys, args)
  local answer, bytes = { 'K' }, 0
  for index = 2, #keys do
    local entry = redis.call('GET', keys[index]) or ''
    answer[#answer + 1], bytes = entry, bytes + #entry
    if bytes >= ANSWER_BYTES then
      break
    end
  end
  return answer
end

-- Arguments: the namespace, a prefix, after which key, empty for none, and how many, packed. Adds whether there are more
-- to look at, the last key that was looked at, and the keys.
local function list(keys, args)
  local ledger, refused = begin(keys, args[1])
  if not ledger then
    return refused
  end
  local prefix, after, most = args[2], args[3], struct.unpack('>I8', args[4])
  local from = after ~= '' and '(' .. after or '[' .. prefix
  local to = prefix ~= '' and '(' .. prefix .. '\255' or '+'
  local found = redis.call('ZRANGE', ledger.at .. 'keys', from, to, 'BYLEX', 'LIMIT', 0, LOOK_AT)
  local answer = { 'K', #found == LOOK_AT and 1 or 0, '' }
  for _, key in ipairs(found) do
    if #answer >= 3 + most then
      answer[2] = 1
      break
    end
    answer[3] = key
    if redis.call('EXISTS', entry_of(ledger, key)) == 1 then
      answer[#answer + 1] = key
    else
      forget(ledger, key)
    end
  end
  return answer
end

-- Checks whose the keys are and what the user may do.
local function check(keys, args)
  local ledger, refused = begin(keys, args[1])
  for _, command in ipairs(COMMANDS) do
    if not redis.acl_check_cmd(command, keys[1]) then
      return { 'D', command }
    end
  end
  return ledger and { 'K' } or refused
end

redis.register_function('@LIBRARY@_write', write)
redis.register_function({ function_name = '@LIBRARY@_read', callback = read, flags = { 'allow-oom' } })
redis.register_function({ function_name = '@LIBRARY@_list', callback = list, flags = { 'allow-oom' } })
redis.register_function({ function_name = '@LIBRARY@_check', callback = check, flags = { 'allow-oom' } })
