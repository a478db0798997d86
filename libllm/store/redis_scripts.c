/* Scripts are sent by their SHA-1 and loaded at every connection. All keys of one share a {hash tag}, so that a cluster
 * keeps them on one node. Every key but the epoch counter has a time to live: under maxmemory-policy volatile-ttl Redis
 * may evict any hint, never the counter. */
#include "store/redis_scripts.h"

#include <openssl/evp.h>
#include <stdio.h>

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
    for (unsigned i = 0; i < REDIS_SHA_BYTES / 2; i++)
        snprintf(sha + 2 * i, 3, "%02x", digest[i]);
    return true;
}
