-- Filters: which records may match one.
--
-- A filter comes as arguments, in prefix order, and no part of it is ever read as a script:
--
--   `&` and `|`   a combination; the number of its members, which follow
--   `!`           the opposite of what follows
--   `?`           what cannot be decided here
--   `c`           a clause: its operator, what it looks at (`m` metadata, `i` identity, `r` and `u` when the
--                 record was registered and updated), the number of keys and of operands; then those
--
-- Every part answers true, false or nil, and nil says that only the caller can tell. A record is passed over
-- where the whole answers false. The caller asks its own evaluator about the others, so an answer that is
-- true too often costs time, and one that is false too often is a defect.
--
-- What `cjson` makes of metadata, and what follows: `[]` and `{}` are the same empty table, so its type is not
-- decided; null is `cjson.null`, and not absent; a double comes back as it was, and metadata holds no integer that
-- is none; the keys of an object are strings, also `"1"`, so that a number never leads into an object.

-- What stands for an array or an object as an operand.
local COMPOUND = {}
-- How far texts are compared, and how long one may be to be searched.
local COMPARED, SEARCHED = 256, 4096

-- Nil where it is possible and cannot be told; false otherwise.
local function only_if(possible)
  if possible then
    return nil
  end
  return false
end

-- By bytes: `<` would go by the collation of the server's locale.
local function text_order(one, other)
  if one == other then
    return 0
  end
  for at = 1, COMPARED do
    local left, right = string.byte(one, at), string.byte(other, at)
    if left ~= right then
      return (left or -1) < (right or -1) and -1 or 1
    end
  end
end

local function order_of(value, bound)
  if type(value) ~= type(bound) then
    return false
  end
  if type(value) == 'string' then
    return text_order(value, bound)
  end
  return value < bound and -1 or value > bound and 1 or 0
end

-- A comparison from what it makes of an order: less, equal, greater.
local function comparison(less, equal, greater)
  return function(value, operands)
    local order = order_of(value, operands[1])
    if not order then
      return order
    end
    return order < 0 and less or order == 0 and equal or order > 0 and greater
  end
end

-- A point in time is a number here; texts may be one as well.
local function of_time(compare)
  return function(value, operands)
    if type(value) == 'string' then
      return nil
    end
    return compare(value, operands)
  end
end

local LESS, LESS_OR_EQUAL = comparison(true, false, false), comparison(true, true, false)
local GREATER, GREATER_OR_EQUAL = comparison(false, false, true), comparison(false, true, true)

local function equals(value, operand)
  if operand == COMPOUND then
    return only_if(type(value) == 'table')
  end
  return value == operand
end

local function contains_element(list, operand)
  if operand == COMPOUND then
    return only_if(#list > 0)
  end
  for _, element in ipairs(list) do
    if element == operand then
      return true
    end
  end
  return false
end

local function contains(value, operands)
  local operand = operands[1]
  if type(value) == 'table' then
    return contains_element(value, operand)
  end
  if type(value) ~= 'string' or type(operand) ~= 'string' then
    return false
  end
  if #value > SEARCHED then
    return nil
  end
  return string.find(value, operand, 1, true) ~= nil
end

local function any_of(value, operands)
  if operands.set[value] then
    return true
  end
  return only_if(operands.set[COMPOUND] and type(value) == 'table')
end

local function type_of(value)
  if value == cjson.null then
    return 'null'
  elseif type(value) ~= 'table' then
    return type(value)
  elseif value[1] ~= nil then
    return 'array'
  end
  return next(value) ~= nil and 'object' or nil
end

-- What a clause asks of a value that is there.
local PREDICATES = {
  ['='] = function(value, operands) return equals(value, operands[1]) end,
  ['<'] = LESS,
  ['{'] = LESS_OR_EQUAL,
  ['>'] = GREATER,
  ['}'] = GREATER_OR_EQUAL,
  ['l'] = of_time(LESS),
  ['L'] = of_time(LESS_OR_EQUAL),
  ['g'] = of_time(GREATER),
  ['G'] = of_time(GREATER_OR_EQUAL),
  ['@'] = any_of,
  ['*'] = contains,
  ['^'] = function(value, operands)
    return type(value) == 'string' and string.sub(value, 1, #operands[1]) == operands[1]
  end,
  ['$'] = function(value, operands)
    return type(value) == 'string' and (operands[1] == '' or string.sub(value, -#operands[1]) == operands[1])
  end,
  ['e'] = function() return true end,
  ['k'] = function(value, operands)
    local kind = type_of(value)
    if kind then
      return kind == operands[1]
    end
    -- Empty: an array or an object.
    return only_if(operands[1] == 'array' or operands[1] == 'object')
  end,
  -- What only texts, and what only objects, are asked by the caller.
  ['x'] = function(value) return only_if(type(value) == 'string') end,
  ['o'] = function(value) return only_if(type(value) == 'table') end,
}

local OPERANDS = {
  n = function(text) return (struct.unpack('>d', text, 2)) end,
  s = function(text) return string.sub(text, 2) end,
  t = function() return true end,
  f = function() return false end,
  z = function() return cjson.null end,
  c = function() return COMPOUND end,
}

local function value_at(metadata, keys)
  local value = metadata
  for _, key in ipairs(keys) do
    if type(value) ~= 'table' then
      return nil
    end
    value = value[key]
  end
  return value
end

-- Looks for what a clause is about: in the metadata, which is nil where it could not be read; in the rest.
local FIELDS = {
  m = function(record, keys) return value_at(record.metadata, keys) end,
  i = function(record) return record.identity end,
  r = function(record) return (struct.unpack('>I8', record.value, REGISTERED_FROM)) end,
  u = function(record) return (struct.unpack('>I8', record.value, UPDATED_FROM)) end,
}

local function clause(args, at)
  local _, operator, field, key_count, operand_count = struct.unpack('>c1c1c1I2I2', args[at])
  local keys, operands = {}, { set = {} }
  for index = 1, key_count do
    keys[index] = args[at + index]
  end
  at = at + key_count
  for index = 1, operand_count do
    local text = args[at + index]
    local operand = OPERANDS[string.sub(text, 1, 1)](text)
    operands[index], operands.set[operand] = operand, true
  end
  local predicate, look = PREDICATES[operator], FIELDS[field]
  local in_metadata = field == 'm'
  local judge = function(record)
    if in_metadata and not record.metadata then
      return nil
    end
    local value = look(record, keys)
    if value == nil then
      return false
    end
    return predicate(value, operands)
  end
  return judge, at + operand_count + 1
end

local parts

-- `decisive` is what one member settles the whole with.
local function combination(decisive)
  return function(args, at)
    local count = struct.unpack('>I2', args[at], 2)
    local members = {}
    at = at + 1
    for index = 1, count do
      members[index], at = parts(args, at)
    end
    return function(record)
      local answer = not decisive
      for _, member in ipairs(members) do
        local said = member(record)
        if said == decisive then
          return decisive
        elseif said == nil then
          answer = nil
        end
      end
      return answer
    end, at
  end
end

local function opposite(args, at)
  local member, after = parts(args, at + 1)
  return function(record)
    local said = member(record)
    if said == nil then
      return nil
    end
    return not said
  end, after
end

local PARTS = {
  ['&'] = combination(false),
  ['|'] = combination(true),
  ['!'] = opposite,
  ['?'] = function(_, at) return function() return nil end, at + 1 end,
  ['c'] = clause,
}

-- The part that begins at an argument, and where the next one does.
parts = function(args, at)
  return PARTS[string.sub(args[at], 1, 1)](args, at)
end
