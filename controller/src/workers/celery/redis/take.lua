-- KEYS: our reply lists, the most urgent first. ARGV: after how many replies, and after how many bytes, to stop; the length
-- from which on a reply is not handed over, but its length and both its ends; and how many bytes an end has.
local most, most_bytes, longest, ends = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local taken, bytes = {}, 0
for _, list in ipairs(KEYS) do
    while #taken < most and bytes < most_bytes do
        local reply = redis.call('RPOP', list)
        if not reply then break end
        bytes = bytes + #reply
        if #reply > longest then
            taken[#taken + 1] = {#reply, string.sub(reply, 1, ends), string.sub(reply, -ends)}
        else
            taken[#taken + 1] = reply
        end
    end
end
return taken
