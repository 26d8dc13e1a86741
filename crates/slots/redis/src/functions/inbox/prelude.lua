#!lua name=@LIBRARY@

-- The inboxes of one namespace, as functions. Redis runs one at a time, so each call is one step.
--
-- The keys, all under one hash tag and behind `:inbox:`:
--
--   head                  string      the clock and what is counted (HEAD, which begins with HEAD_FORMAT, then the
--                                     namespace's name)
--   sessions              hash        identity -> who works on its inbox (FORMAT, whether it is ready, SESSION), and
--                                     when that was heard of, about
--   high:<identity>       stream      its messages of a priority, the oldest first: `m` names the message
--   normal:<identity>                 (REFERENCE), `e` is what the inbox needs to know of it (ENTRY)
--   low:<identity>
--   out:<identity>        sorted set  PLACE by when it is due again, of what a consumer has
--   back:<identity>       sorted set  PLACE by when it is due, of what came back; 0 once it is
--   tries:<identity>      hash        PLACE -> how often it was handed out, of what is in one of these; and
--                                     under `c` how far the handing out has come in each stream (CURSOR)
--   message:<multicast>   hash        identity -> WAITS, or LEFT while storing it again is to be noticed;
--                                     and under the empty name how often each body of it is held (COUNT)
--   body:<reference>      string      the message, once, however many inboxes hold it
--   ends                  sorted set  LIST by when something in it ends
--   expired               list        what expired and is told by the next sweep
--   dead                  stream      dead letters: `i` whom it was for, `m` REFERENCE, `e` DEATH, `r` why
--   buried                hash        identity -> how many dead letters it has
--
-- A key of an identity exists only while it has messages. What an identity costs beyond them is its
-- field in `sessions`, until nobody has been heard of for long. An id in a stream is a time and a number, the same in
-- every inbox that one call stores in.
--
-- REFERENCE is the multicast in hexadecimal, a dash and a digest of the body: a message that is sent again may
-- say something else, such as where word of it is welcome. Bodies are not looked into, but for the bytes with
-- which they begin: the ticket, which is given back when the message ends by itself.
--
-- The keys of a call cannot all be named beforehand: what is in an inbox says which messages it needs.
-- They are in one slot of a cluster because of their hash tag. What can fail is done first: a call reads what
-- it is about to write, so that a key of another type, or one that has moved away, ends it before it writes.
-- Storing is the exception, where each inbox succeeds or fails by itself, with the first thing that is
-- written to it.
--
-- Lua's numbers are doubles. Times, counts and sizes stay below 2^53.

local FORMAT = 1
local HEAD_FORMAT = 2
local COMMON = '>I8BI8I8I8'
local HEAD = '>BI8I8I8I4I8I8I8I8I8I8'
local PLACE = '>I8I4'
local ENTRY = '>Bc16I8I4I2'
local WAITS = '>BBc13c16I8'
local LEFT = '>BBI8'
local COUNT = '>c16I4'
-- How long FORMAT with a holder is.
local HELD = 17
local LIST = '>Bc13I8I8I2'
local DEATH = '>BBI4I8I4I2'

-- The kinds of what `message` holds for an identity.
local WAITING, GONE = 1, 2
-- Why a message is a dead letter.
local MAX_DELIVER, TERMINATED, OTHER_HOLDER = 1, 2, 3

-- A place is the digit of a priority and an id, packed. Cursors and sessions begin with FORMAT; while functions are
-- loaded there are none of Lua's to build these with.
local CURSOR, NOWHERE = '\1', '\0\0\0\0\0\0\0\0\0\0\0\0'
local NO_COUNT, LONG_COUNTS = '\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0', 4
local READY, OPENING = '\1\1', '\1\0'
local LARGEST = 9007199254740991

-- How much one call does: about 2 ms of it.
local LOOK_AT, REMOVE, PAGE, PROMOTE = 512, 128, 64, 512
local EXPIRE, SCAN_COST = 192, 1 / 16
local ANSWER_BYTES = 1024 * 1024
-- How many values are passed to one command.
local CHUNK = 128
-- How many inboxes are asked at once whether there is anything in them, and from how many on a message has many.
local GROUP, MANY = 16, 16
-- From which distance on the clock alone is worth a write.
local WORTH_SAVING = 100

-- What is done with the keys, beside ZUNIONSTORE.
local COMMANDS = {
  'GET', 'SET', 'MGET', 'GETRANGE', 'EXISTS', 'UNLINK', 'TIME',
  'HGET', 'HSET', 'HSCAN', 'HMGET', 'HDEL', 'HLEN', 'HINCRBY', 'HSETNX',
  'ZADD', 'ZREM', 'ZRANGE', 'ZCOUNT', 'ZSCORE',
  'XADD', 'XDEL', 'XLEN', 'XRANGE', 'RPUSH', 'LPOP', 'LLEN',
}

local function bounded(number)
  return math.min(number, LARGEST)
end

-- Something that a later version wrote: not ours to touch.
local function readable(text, what)
  if string.byte(text) ~= FORMAT then
    error({ answer = { 'V', what } }, 0)
  end
  return text
end
