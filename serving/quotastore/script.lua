-- The rules of serving/fleet/quotas.py as one atomic script. KEYS[1]: what all names begin with, a hash tag, so that a
-- cluster keeps them together. ARGV: what to do, its argument as msgpack, and for tests the time (else Redis' own).
-- A rate is a hash of slots, seats a sorted set of leases, money a hash of spent and held; a reservation under way is
-- a string of its lines and a lease in the sorted set `open`; a settled id is a string that is forgotten after DONE.
local SLOT, SLOTS, LEASE, DONE = 2, 30, 30, 900
local KEPT = 40 * 86400
local P, op, now = KEYS[1], ARGV[1], tonumber(ARGV[3])
local a = cmsgpack.unpack(ARGV[2])
if not now then
  local t = redis.call('TIME')
  now = tonumber(t[1]) + tonumber(t[2]) / 1e6
end
local current = math.floor(now / SLOT)
local function whole(n) return string.format('%.0f', n) end
local function name(kind, key) return P .. kind .. '/' .. key end

local function window(key)
  local flat, used, slots = redis.call('HGETALL', key), 0, {}
  for i = 1, #flat, 2 do
    local slot, amount = tonumber(flat[i]), tonumber(flat[i + 1])
    if slot < current - SLOTS then
      redis.call('HDEL', key, flat[i])
    else
      if slot > current then
        redis.call('HDEL', key, flat[i])
        redis.call('HINCRBY', key, whole(current), whole(amount))
        slot = current
      end
      used = used + amount
      slots[#slots + 1] = {slot, amount}
    end
  end
  return used, slots
end

local function taken(key)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key, string.format('(%.17g', now + LEASE), '+inf')) do
    redis.call('ZADD', key, now + LEASE, id)
  end
  return redis.call('ZCARD', key)
end

local function used(key, kind)
  if kind == 'rate' then return (window(name('r', key))) end
  if kind == 'seats' then return taken(name('s', key)) end
  local found = redis.call('HMGET', name('m', key), 'spent', 'held')
  return found[1] and tonumber(found[1]) + tonumber(found[2]) or 0
end

local function reset_s(key)
  local _, slots = window(name('r', key))
  local last = nil
  for _, s in ipairs(slots) do
    if s[2] > 0 and (not last or s[1] > last) then last = s[1] end
  end
  return last and math.max(0, (last + SLOTS + 1) * SLOT - now) or 0
end

local function retry_s(want)
  if want[2] ~= 'rate' or want[5] > want[3] then return 0 end
  local all, slots = window(name('r', want[1]))
  local over = all + want[5] - want[3]
  table.sort(slots, function(x, y) return x[1] < y[1] end)
  for _, s in ipairs(slots) do
    over = over - s[2]
    if over <= 0 then return math.max(0, (s[1] + SLOTS + 1) * SLOT - now) end
  end
  return 0
end

local function replace(id, key, kind, held, spent, slot)
  if kind == 'seats' then
    redis.call('ZREM', name('s', key), id)
  elseif kind == 'rate' then
    local at = name('r', key)
    window(at)
    slot = math.min(slot, current)
    if slot >= current - SLOTS then
      local before = tonumber(redis.call('HGET', at, whole(slot)) or '0')
      redis.call('HSET', at, whole(slot), whole(math.max(0, before + spent - held)))
      redis.call('EXPIRE', at, (SLOTS + 2) * SLOT)
    end
  else
    local at = name('m', key)
    if redis.call('EXISTS', at) == 1 then
      redis.call('HINCRBY', at, 'held', whole(0 - held))
      redis.call('HINCRBY', at, 'spent', whole(spent))
      redis.call('EXPIRE', at, KEPT)
    end
  end
end

local function lines(wants, grants)
  local found = {}
  for i, want in ipairs(wants) do
    local reset = want[2] == 'rate' and reset_s(want[1]) or 0
    found[i] = {grants[i], used(want[1], want[2]), reset}
  end
  return cmsgpack.pack({'Granted', found})
end

if op == 'reserve' then
  local id, wants, grants = a[1], a[2], {}
  local known = redis.call('GET', name('o', id))
  if known then
    local held = {}
    for _, line in ipairs(cmsgpack.unpack(known)) do held[line[1]] = line[3] end
    for i, want in ipairs(wants) do grants[i] = held[want[1]] or 0 end
    return lines(wants, grants)
  end
  local unknown = {}
  for _, want in ipairs(wants) do
    if want[2] == 'money' and redis.call('EXISTS', name('m', want[1])) == 0 then unknown[#unknown + 1] = want[1] end
  end
  if #unknown > 0 then return cmsgpack.pack({'Unseeded', unknown}) end
  for i, want in ipairs(wants) do
    local all = used(want[1], want[2])
    local room = want[3] - all
    if room < want[5] or room <= 0 then return cmsgpack.pack({'Refused', i - 1, all, retry_s(want)}) end
    grants[i] = math.min(want[4], room)
  end
  local hold = {}
  for i, want in ipairs(wants) do
    local key, kind = want[1], want[2]
    if kind == 'rate' then
      redis.call('HINCRBY', name('r', key), whole(current), whole(grants[i]))
      redis.call('EXPIRE', name('r', key), (SLOTS + 2) * SLOT)
    elseif kind == 'seats' then
      redis.call('ZADD', name('s', key), now + LEASE, id)
      redis.call('EXPIRE', name('s', key), 4 * LEASE)
    else
      redis.call('HINCRBY', name('m', key), 'held', whole(grants[i]))
      redis.call('EXPIRE', name('m', key), KEPT)
    end
    hold[i] = {key, kind, grants[i], current}
  end
  redis.call('SET', name('o', id), cmsgpack.pack(hold))
  redis.call('ZADD', P .. 'open', now + LEASE, id)
  return lines(wants, grants)
end

if op == 'settle' then
  for _, settlement in ipairs(a) do
    local id, parts = settlement[1], settlement[2]
    if redis.call('SET', name('d', id), '1', 'NX', 'EX', DONE) then
      local holds = {}
      local known = redis.call('GET', name('o', id))
      for _, line in ipairs(known and cmsgpack.unpack(known) or {}) do holds[line[1]] = line end
      redis.call('DEL', name('o', id))
      redis.call('ZREM', P .. 'open', id)
      for _, part in ipairs(parts) do
        local hold = holds[part[1]]
        holds[part[1]] = nil
        replace(id, part[1], part[2], hold and hold[3] or 0, part[3], hold and hold[4] or current)
      end
      for key, hold in pairs(holds) do replace(id, key, hold[2], hold[3], 0, hold[4]) end
    end
  end
  return ''
end

if op == 'renew' then
  for _, lease in ipairs(a) do
    local id = lease[1]
    if redis.call('EXISTS', name('d', id)) == 0 then
      local hold = {}
      for i, key in ipairs(lease[2]) do
        hold[i] = {key, 'seats', 1, 0}
        redis.call('ZADD', name('s', key), now + LEASE, id)
        redis.call('EXPIRE', name('s', key), 4 * LEASE)
      end
      redis.call('SET', name('o', id), cmsgpack.pack(hold), 'NX')
      redis.call('ZADD', P .. 'open', now + LEASE, id)
    end
  end
  return ''
end

if op == 'overdue' then
  local found = {}
  local late = redis.call('ZRANGEBYSCORE', P .. 'open', '-inf', now)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'open', string.format('(%.17g', now + LEASE), '+inf')) do
    late[#late + 1] = id
  end
  for _, id in ipairs(late) do
    local counters = {}
    for i, line in ipairs(cmsgpack.unpack(redis.call('GET', name('o', id)) or cmsgpack.pack({}))) do
      counters[i] = {line[1], line[2]}
    end
    found[#found + 1] = {id, counters}
  end
  return cmsgpack.pack(found)
end

if op == 'seed' then
  local at = name('m', a[1])
  if redis.call('EXISTS', at) == 0 then
    redis.call('HSET', at, 'spent', whole(a[2]), 'held', '0')
    redis.call('EXPIRE', at, KEPT)
  end
  return ''
end

local found = {}
for i, pair in ipairs(a) do found[i] = used(pair[1], pair[2]) end
return cmsgpack.pack(found)
