-- The edge's answer to what it refuses, after the body has been read and thrown away: a client that is still
-- sending would find a broken connection in the answer's place.

local BYTES = 64 * 1024 * 1024
local SECONDS = 5
local PIECE = 4096

local function seconds()
    local now = core.now()
    return now.sec + now.usec / 1e6
end

core.register_service("refuse", "http", function(applet)
    local status, body = applet:get_var("txn.refusal"):match("^(%d+) (.*)$")
    local left, till = BYTES, seconds() + SECONDS
    -- What follows CONNECT has no end.
    while applet.method ~= "CONNECT" and left > 0 and seconds() < till do
        local read = #applet:receive(PIECE)
        if read == 0 then break end
        left = left - read
    end
    applet:set_status(tonumber(status))
    applet:add_header("content-type", "application/json")
    applet:add_header("content-length", tostring(#body))
    applet:start_response()
    applet:send(body)
end)
