-- Queries: the live records that may match a filter, a bounded number of them looked at in one call.

-- How much one call does, in what reading a byte of metadata costs, and what the rest costs by that measure. All
-- of it is 1 to 1.5 ms, and 1 ms more where a large record is read among small ones.
local QUERY_WORK = 64 * 1024
local WORK_A_FETCH, WORK_A_RECORD, WORK_A_PART, WORK_A_TABLE, WORK_SENT, COPIED_BYTES = 160, 80, 24, 12, 120, 8
-- How many records are fetched at once: first, while it is not known how large they are, and at most. What was
-- fetched and is not looked at any more has to be sent.
local FIRST_STEP, LARGEST_STEP = 1, 16
-- A larger record is left to the caller: reading it here would take too long by itself.
local READABLE_BYTES = 68 * 1024

-- The bytes with which lists and objects begin.
local OPENINGS = { '[', '{' }

-- How many lists and objects a text has; more than `most` are not counted. Each of them becomes a table, and those
-- cost the most. Texts that hold such bytes are counted with them.
local function tables_in(text, most)
  local count = 0
  for _, opening in ipairs(OPENINGS) do
    local at = string.find(text, opening, 1, true)
    while at and count <= most do
      count = count + 1
      at = string.find(text, opening, at + 1, true)
    end
  end
  return count
end

-- The metadata as a table; nil where it cannot be read here.
local function metadata_of(value)
  local size = struct.unpack('>I4', value, PRINCIPAL_SIZE_FROM)
  local read, metadata = pcall(cjson.decode, string.sub(value, PRINCIPAL_FROM + size))
  return read and type(metadata) == 'table' and metadata or nil
end

-- Whether a record may match.
local function may_match(search, identity, value)
  local judge = search.judge
  search.left = search.left - search.each - #value / COPIED_BYTES
  if not judge or search.left <= 0 then
    return true
  end
  local record = { identity = identity, value = value }
  if search.reads_metadata and #value <= READABLE_BYTES then
    local most = math.max(search.left, READABLE_BYTES) / WORK_A_TABLE
    local tables = tables_in(value, most)
    if tables <= most then
      record.metadata = metadata_of(value)
      search.left = search.left - #value
    end
    search.left = search.left - WORK_A_TABLE * tables
  end
  return judge(record) ~= false
end

-- Adds those of a page of HSCAN that may match and are live.
local function select_from(ns, answer, search, page)
  local identities, values = {}, {}
  for index = 1, #page, 2 do
    local identity, value = page[index], page[index + 1]
    readable(value)
    if may_match(search, identity, value) then
      identities[#identities + 1], values[#values + 1] = identity, value
      search.left = search.left - WORK_SENT - #value / COPIED_BYTES
    end
  end
  for from = 1, #identities, CHUNK do
    local terms, deadlines = leases_of(ns, identities, from, math.min(from + CHUNK - 1, #identities))
    for index, term in ipairs(terms) do
      local at = from + index - 1
      local lease_end = term and effective_end(ns, term, deadlines[index]) or nil
      if not lease_end or lease_end > ns.now then
        answer[#answer + 1] = identities[at]
        answer[#answer + 1] = struct.pack('>c8I8', ttl_of(term), on_wall(ns, lease_end)) .. values[at]
      end
    end
  end
end

-- Arguments: the cursor of HSCAN; how many records to look at, how many parts the filter has and whether one
-- of them is about metadata, packed; the filter, none for everything. Adds the next cursor, how many records
-- were looked at, and for each that may match what `scan` adds.
local function query(ns, answer, args)
  local count, part_count, reads_metadata = struct.unpack('>I8I8B', args[3])
  local search = {
    judge = args[4] and parts(args, 4), reads_metadata = reads_metadata == 1,
    left = QUERY_WORK, each = WORK_A_RECORD + WORK_A_PART * part_count,
  }
  local cursor, looked, step = args[2], 0, FIRST_STEP
  answer[4], answer[5] = cursor, looked
  repeat
    local page = redis.call('HSCAN', ns.keys.records, cursor, 'COUNT', string.format('%.0f', step))
    cursor, looked = page[1], looked + #page[2] / 2
    -- Where many records were removed it may bring none, many times.
    search.left = search.left - WORK_A_FETCH
    select_from(ns, answer, search, page[2])
    local cost = (QUERY_WORK - search.left) / math.max(1, looked)
    local affordable = math.floor(search.left / math.max(1, cost))
    step = math.max(1, math.min(LARGEST_STEP, 2 * step, count - looked, affordable))
  until cursor == '0' or looked >= count or affordable < 1
  answer[4], answer[5] = cursor, looked
end
