#!lua name=@LIBRARY@

-- The registry of one namespace, as functions. Redis runs one at a time, so each call is one step.
--
-- The keys, all under one hash tag, in the order in which every call names them:
--
--   head     string        where history stands (HEAD, then the namespace's name)
--   records  hash          identity -> record (RECORD, owner, metadata)
--   terms    hash          identity -> ttl and generation, for records with a lease only
--   leases   sorted set    identity by deadline on the lease clock, the same members as `terms`
--   feed     stream        one change a revision, under the id `<revision>-0`
--   marks    list          the points up to which the feed may be cut (MARK)
--
-- A renewal reads `terms` and moves a score in `leases`; metadata is neither read nor written by it.
-- Only `filters` looks into metadata, and no more than to pass records over. No key has a time to live of its own: an end must be a change at
-- a revision, by the lease clock.
--
-- Lua's numbers are doubles. Revisions, counts and milliseconds stay below 2^53 and are numbers here;
-- epochs, ttls, session and request ids may be larger and stay bytes.
--
-- A function that fails midway keeps what it wrote. What can fail is therefore done first: `begin`
-- touches every key with a command of its own type, so that a key of another type fails the call
-- before it writes; Redis refuses a call up front when it is out of memory, read-only or cannot
-- persist, and does not look again once the call has written; `append` can be refused by the stream
-- and is the first write of each change. Every item of a batch runs under `pcall`, and the head is
-- saved whatever became of it.

local FORMAT = 1
local HEAD = '>Bc8c16c40I8I8I8I8I8I8I8I8I8I8I8I8I8I8I8I8I8'
local COMMON = '>c8c8c16I8I8I8'
local RECORD = '>Bc8I8I8I8I8c16B'
local CHANGE = '>BBI8c8I8I2I4'
local MARK = '>I8I8I8'

-- Where things are in a record, counted from one.
local GENERATION_FROM, GENERATION_TO = 2, 17
local REVISION_FROM = 18
local REGISTERED_FROM, UPDATED_FROM = 26, 34
local REQUEST_FROM, REQUEST_TO = 42, 57
local WRITTEN_AT = 58
local OWNER_FROM = 59
local PRINCIPAL_SIZE_FROM, PRINCIPAL_FROM = 76, 80

-- What a record's last write was, and the causes of changes.
local WRITTEN_REGISTERED, WRITTEN_REPLACED, WRITTEN_UPDATED, WRITTEN_RENEWED = 1, 2, 3, 4
local CAUSE_REGISTERED, CAUSE_REPLACED, CAUSE_UPDATED, CAUSE_UNREGISTERED, CAUSE_EXPIRED = 1, 2, 3, 4, 5

local NONE_8 = '\0\0\0\0\0\0\0\0'
local NONE_16 = NONE_8 .. NONE_8
local LARGEST = 9007199254740991

-- The longest step of the lease clock, and the shortest that is worth a write by itself.
local MAX_STEP, WORTH_SAVING = 2000, 100
-- How much one call does of the expiring that nobody asked for by name: about 2 ms.
local EXPIRE_RECORDS, EXPIRE_BYTES = 128, 512 * 1024
-- How many bytes of changes one answer carries, about.
local ANSWER_BYTES = 1024 * 1024
-- The feed is cut in steps of this fraction of its limits, so that what is kept is at most that much
-- less than configured.
local SEGMENTS = 64
-- How many marks one call drops, and by how much a hold may let the feed outgrow its limits.
local TRIM_MARKS, HOLD_FACTOR = 256, 4
-- How many values are passed to one command, and how many changes are read by one.
local CHUNK, READ_CHANGES = 256, 32

-- What is done with each key, and without one.
local COMMANDS = {
  { 'GET', 'SET', 'TIME', 'INFO' },
  { 'HGET', 'HSET', 'HDEL', 'HLEN', 'HSCAN', 'UNLINK' },
  { 'HGET', 'HMGET', 'HSET', 'HDEL', 'HLEN', 'UNLINK' },
  { 'ZADD', 'ZREM', 'ZCARD', 'ZSCORE', 'ZMSCORE', 'ZRANGE', 'UNLINK' },
  { 'XADD', 'XLEN', 'XRANGE', 'XTRIM', 'UNLINK' },
  { 'RPUSH', 'LPOP', 'LLEN', 'LINDEX', 'UNLINK' },
}
