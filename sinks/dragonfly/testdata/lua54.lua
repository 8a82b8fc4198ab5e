-- Runs scripts under Lua 5.4 as Dragonfly does, and is stricter where Lua 5.1 and 5.4 would part: a float among the
-- arguments of a command or in an answer is an error, and so are nil in an answer, and a global that is set.
--
-- It reads lines, each a Lua expression, and writes one for each: its kind and the number of its values, and then a line
-- with type and length before each value.
--
--   {source, keys, args}  runs a script. Until its answer ("answer" or "error") it may send "call", whose answer it
--                         reads as the next line.

local function send(kind, values)
  io.write(kind, ' ', #values, '\n')
  for _, value in ipairs(values) do
    local text = tostring(value)
    io.write(math.type(value) or type(value), ' ', #text, '\n', text, '\n')
  end
  io.flush()
end

local function receive()
  local line = io.read('L')
  if not line then
    os.exit(0)
  end
  return assert(load('return ' .. line))()
end

local function call(...)
  send('call', table.pack(...))
  return receive()
end

redis = {
  pcall = call,
  call = function(...)
    local answer = call(...)
    if type(answer) == 'table' and answer.err then
      error(answer.err)
    end
    return answer
  end,
}

setmetatable(_G, {
  __newindex = function(_, name) error('the script sets the global ' .. name, 2) end,
})

while true do
  local script = receive()
  rawset(_G, 'KEYS', script[2])
  rawset(_G, 'ARGV', script[3])
  local done, answer = pcall(assert(load(script[1])))
  if not done then
    send('error', { answer })
  elseif type(answer) == 'table' then
    send('answer', answer)
  else
    send('answer', { answer })
  end
end
