/* Scripts are sent by their SHA-1 and loaded at every connection. All keys of one share a {hash tag}, so that a cluster
 * keeps them on one node. Every key but the epoch counter has a time to live: under the policies volatile-* Redis
 * may evict any hint, never the counter. */
#include "store/redis_scripts.h"

#include "base/hex.h"

#include <openssl/evp.h>

/* The epoch is above all given out before, above the one the worker remembers, and not below the clock: it rises even
 * when the database was emptied or a failover lost the last writes. %.0f, as Lua writes large numbers as 1.7e+12. KEYS:
 * counter, worker, role. ARGV: ttl, last epoch, id, role, address, capabilities. */
static const char register_script[] = //
    "local time = redis.call('TIME')\n"
    "local now = time[1] * 1000 + math.floor(time[2] / 1000)\n"
    "local clock = time[1] * 1000000 + time[2]\n"
    "local epoch = math.max((tonumber(redis.call('GET', KEYS[1])) or 0) + 1, tonumber(ARGV[2]) + 1, clock)\n"
    "local text = string.format('%.0f', epoch)\n"
    "redis.call('SET', KEYS[1], text)\n"
    "redis.call('DEL', KEYS[2])\n"
    "redis.call('HSET', KEYS[2], 'epoch', text, 'role', ARGV[4], 'addr', ARGV[5], 'caps', ARGV[6])\n"
    "redis.call('PEXPIRE', KEYS[2], ARGV[1])\n"
    "redis.call('ZADD', KEYS[3], string.format('%.0f', now + ARGV[1]), ARGV[3])\n"
    "if redis.call('PTTL', KEYS[3]) < tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[3], ARGV[1]) end\n"
    "return text\n";

/* KEYS: worker, role. ARGV: ttl, epoch, id. */
static const char renew_script[] = //
    "if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[2] then return 0 end\n"
    "local time = redis.call('TIME')\n"
    "local now = time[1] * 1000 + math.floor(time[2] / 1000)\n"
    "redis.call('PEXPIRE', KEYS[1], ARGV[1])\n"
    "redis.call('ZADD', KEYS[2], string.format('%.0f', now + ARGV[1]), ARGV[3])\n"
    "if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[2], ARGV[1]) end\n"
    "return 1\n";

/* KEYS: worker, role. ARGV: epoch, id. */
static const char release_script[] = //
    "if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end\n"
    "redis.call('DEL', KEYS[1])\n"
    "redis.call('ZREM', KEYS[2], ARGV[2])\n"
    "return 1\n";

/* KEYS: role. ARGV: what worker keys begin with, role, most workers. */
static const char list_script[] = //
    "local time = redis.call('TIME')\n"
    "local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))\n"
    "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. now)\n"
    "local found = {}\n"
    "for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf', 'LIMIT', 0, ARGV[3])) do\n"
    "  local w = redis.call('HMGET', ARGV[1] .. id, 'epoch', 'addr', 'caps', 'role')\n"
    "  if w[1] and w[4] == ARGV[2] then found[#found + 1] = {id, w[1], w[2], w[3]} end\n"
    "end\n"
    "return found\n";

/* KEYS: session. ARGV: ttl, fence, worker, epoch, number of blocks, last hash. */
static const char session_set_script[] = //
    "local fence = redis.call('HGET', KEYS[1], 'fence')\n"
    "if fence and tonumber(fence) > tonumber(ARGV[2]) then return 0 end\n"
    "redis.call('HSET', KEYS[1], 'fence', ARGV[2], 'worker', ARGV[3], 'epoch', ARGV[4], 'nblocks', ARGV[5],\n"
    "  'last_hash', ARGV[6])\n"
    "redis.call('PEXPIRE', KEYS[1], ARGV[1])\n"
    "return 1\n";

/* KEYS: session. ARGV: ttl. */
static const char session_get_script[] = //
    "local s = redis.call('HMGET', KEYS[1], 'worker', 'epoch', 'fence', 'nblocks', 'last_hash')\n"
    "if not s[1] then return false end\n"
    "redis.call('PEXPIRE', KEYS[1], ARGV[1])\n"
    "return s\n";

/* A block is a field of 8 bytes with a value of one: small hashes stay a listpack of some 14 bytes a block. Its lowest
 * byte comes first and names its bucket. KEYS: inventory. ARGV: ttl, buckets, tier, hashes one behind the other. */
static const char publish_script[] = //
    "for i = 1, #ARGV[4], 8 do\n"
    "  local bucket = string.byte(ARGV[4], i) % ARGV[2]\n"
    "  redis.call('HSET', KEYS[1] .. ':' .. bucket, string.sub(ARGV[4], i, i + 7), ARGV[3])\n"
    "end\n"
    "for bucket = 0, ARGV[2] - 1 do redis.call('PEXPIRE', KEYS[1] .. ':' .. bucket, ARGV[1]) end\n"
    "return 1\n";

/* KEYS: inventory. ARGV: buckets, hashes one behind the other. */
static const char forget_script[] = //
    "for i = 1, #ARGV[2], 8 do\n"
    "  local bucket = string.byte(ARGV[2], i) % ARGV[1]\n"
    "  redis.call('HDEL', KEYS[1] .. ':' .. bucket, string.sub(ARGV[2], i, i + 7))\n"
    "end\n"
    "if #ARGV[2] == 0 then\n"
    "  for bucket = 0, ARGV[1] - 1 do redis.call('UNLINK', KEYS[1] .. ':' .. bucket) end\n"
    "end\n"
    "return 1\n";

/* GET, because Lua would round what INCRBY returns. KEYS: counter. ARGV: ttl, amount. */
static const char count_script[] = //
    "redis.call('INCRBY', KEYS[1], ARGV[2])\n"
    "if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end\n"
    "return redis.call('GET', KEYS[1])\n";

/* A log's entries are a stream with ids 1-0, 2-0, ...; what changes is a hash beside it: print (fingerprint), fence, n,
 * size, note, done, lease (its end in ms). The fence is not below the clock, so it rises also when the log was lost.
 * KEYS: head, entries. ARGV: ttl, lease, fingerprint, note. */
static const char log_open_script[] = //
    "local time = redis.call('TIME')\n"
    "local now = time[1] * 1000 + math.floor(time[2] / 1000)\n"
    "local clock = time[1] * 1000000 + time[2]\n"
    "local ends = string.format('%.0f', now + ARGV[2])\n"
    "local h = redis.call('HMGET', KEYS[1], 'print', 'fence', 'n', 'note', 'done', 'lease')\n"
    "if h[1] and h[1] ~= ARGV[3] then return 0 end\n"
    "local granted, held = 0, 0\n"
    "if not h[1] then\n"
    "  h = {ARGV[3], string.format('%.0f', clock), '0', ARGV[4], '0'}\n"
    "  redis.call('DEL', KEYS[2])\n"
    "  redis.call('HSET', KEYS[1], 'print', h[1], 'fence', h[2], 'n', 0, 'size', 0, 'note', h[4], 'done', 0,\n"
    "    'lease', ends)\n"
    "  granted = 1\n"
    "elseif h[5] == '0' and tonumber(h[6]) > now then\n"
    "  held = 1\n"
    "elseif h[5] == '0' then\n"
    "  h[2] = string.format('%.0f', math.max(tonumber(h[2]) + 1, clock))\n"
    "  redis.call('HSET', KEYS[1], 'fence', h[2], 'lease', ends)\n"
    "  granted = 1\n"
    "end\n"
    "for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[1]) end\n"
    "return {h[2], h[3], h[4], h[5], tostring(held), tostring(granted)}\n";

/* 1: done; 0: fenced; -1: gone or full. An entry that is there already was added by the same writer: it is the same.
 * KEYS: head, entries. ARGV: ttl, lease, fence, entries before, is last, entry, most entries, most bytes. */
static const char log_append_script[] = //
    "local h = redis.call('HMGET', KEYS[1], 'fence', 'n', 'size')\n"
    "if not h[1] then return -1 end\n"
    "if h[1] ~= ARGV[3] then return 0 end\n"
    "local n, before, size = tonumber(h[2]), tonumber(ARGV[4]), h[3] + #ARGV[6]\n"
    "if #ARGV[6] > 0 and n ~= before + 1 then\n"
    "  if n ~= before or n >= tonumber(ARGV[7]) or size > tonumber(ARGV[8]) then return -1 end\n"
    "  redis.call('XADD', KEYS[2], (n + 1) .. '-0', 'e', ARGV[6])\n"
    "  redis.call('HSET', KEYS[1], 'n', n + 1, 'size', size, 'done', ARGV[5])\n"
    "end\n"
    "local time = redis.call('TIME')\n"
    "local now = time[1] * 1000 + math.floor(time[2] / 1000)\n"
    "redis.call('HSET', KEYS[1], 'lease', string.format('%.0f', now + ARGV[2]))\n"
    "for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[1]) end\n"
    "return 1\n";

/* Head and entries can be evicted one without the other: a gap is a lost log. KEYS: head, entries. ARGV: entries
 * before, most entries, bytes that are enough. */
static const char log_read_script[] = //
    "local h = redis.call('HMGET', KEYS[1], 'fence', 'n', 'note', 'done', 'lease')\n"
    "if not h[1] then return false end\n"
    "local time = redis.call('TIME')\n"
    "local now = time[1] * 1000 + math.floor(time[2] / 1000)\n"
    "local held = (h[4] == '0' and tonumber(h[5]) > now) and '1' or '0'\n"
    "local found = {h[1], h[2], h[3], h[4], held}\n"
    "local at, bytes, n = tonumber(ARGV[1]), 0, tonumber(h[2])\n"
    "local last = math.min(n, at + ARGV[2])\n"
    "while at < last and bytes < tonumber(ARGV[3]) do\n"
    "  local part = redis.call('XRANGE', KEYS[2], (at + 1) .. '-0', '+', 'COUNT', math.min(64, last - at))\n"
    "  if #part == 0 then return false end\n"
    "  for _, entry in ipairs(part) do\n"
    "    at = at + 1\n"
    "    if entry[1] ~= at .. '-0' then return false end\n"
    "    found[#found + 1] = entry[2][2]\n"
    "    bytes = bytes + #entry[2][2]\n"
    "    if bytes >= tonumber(ARGV[3]) then break end\n"
    "  end\n"
    "end\n"
    "return found\n";

/* KEYS: head, entries. ARGV: fence, whether to forget. */
static const char log_release_script[] = //
    "if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[1] then return 0 end\n"
    "if ARGV[2] == '1' then redis.call('DEL', KEYS[1], KEYS[2]) else redis.call('HSET', KEYS[1], 'lease', 0) end\n"
    "return 1\n";

static const char *const scripts[N_STORE_OPS] = {
    [STORE_OP_REGISTER]    = register_script,
    [STORE_OP_RENEW]       = renew_script,
    [STORE_OP_RELEASE]     = release_script,
    [STORE_OP_LIST]        = list_script,
    [STORE_OP_SESSION_SET] = session_set_script,
    [STORE_OP_SESSION_GET] = session_get_script,
    [STORE_OP_PUBLISH]     = publish_script,
    [STORE_OP_FORGET]      = forget_script,
    [STORE_OP_COUNT]       = count_script,
    [STORE_OP_LOG_OPEN]    = log_open_script,
    [STORE_OP_LOG_APPEND]  = log_append_script,
    [STORE_OP_LOG_READ]    = log_read_script,
    [STORE_OP_LOG_RELEASE] = log_release_script,
};

const char *redis_script(store_op op)
{
    return scripts[op];
}

bool redis_script_sha(store_op op, char sha[REDIS_SHA_BYTES + 1], error *err)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned      n_bytes;
    if (EVP_Digest(scripts[op], strlen(scripts[op]), digest, &n_bytes, EVP_sha1(), NULL) != 1)
        return error_set(err, ERR_INTERNAL, "store: OpenSSL computes no SHA-1, which Redis names scripts by");
    hex_print(digest, REDIS_SHA_BYTES / 2, sha);
    return true;
}
