/* One function an operation in each direction. Keys:
 *
 *   P:{wk}:epoch             the epoch counter, the only key without a time to live
 *   P:{wk}:id:WORKER         hash: epoch, role, addr, caps; lives as long as the lease
 *   P:{wk}:role:ROLE         sorted set: worker by the end of its lease
 *   P:ss:SESSION             hash: fence, worker, epoch, nblocks, last_hash
 *   P:inv:{MODEL:WORKER.EPOCH}:BUCKET   hash: 8 bytes of block hash, tier
 *   P:n:COUNTER              integer
 *   P:log:{KEY}              hash: print, fence, n, size, note, done, lease
 *   P:log:{KEY}:e            stream: the entries of that log */
#include "store/redis_commands.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* --------------------------------------------------------------------------------------------------- arguments */

static void add(redis_command *c, span argument)
{
    assert(c->n_arguments < REDIS_ARGUMENTS_MAX);
    c->arguments[c->n_arguments] = argument.data;
    c->sizes[c->n_arguments++]   = argument.size;
}

static void __attribute__((format(printf, 2, 3))) add_format(redis_command *c, const char *format, ...)
{
    va_list args;
    size_t  room = sizeof c->text - c->n_text_bytes;
    va_start(args, format);
    int n = vsnprintf(c->text + c->n_text_bytes, room, format, args);
    va_end(args);
    assert(n >= 0 && (size_t)n < room);
    add(c, (span){c->text + c->n_text_bytes, (size_t)n});
    c->n_text_bytes += (size_t)n;
}

/* A key "PREFIX:kind" with a name of any bytes behind it. */
static void add_key(redis_command *c, const redis_names *names, const char *kind, span name)
{
    size_t start = c->n_text_bytes;
    add_format(c, "%s:%s", names->key_prefix, kind);
    assert(name.size <= sizeof c->text - c->n_text_bytes);
    if (name.size)
        memcpy(c->text + c->n_text_bytes, name.data, name.size);
    c->n_text_bytes += name.size;
    c->sizes[c->n_arguments - 1] = c->n_text_bytes - start;
}

/* More bytes of the argument that was added last. */
static void add_tail(redis_command *c, const char *tail, size_t n)
{
    assert(n <= sizeof c->text - c->n_text_bytes);
    memcpy(c->text + c->n_text_bytes, tail, n);
    c->n_text_bytes += n;
    c->sizes[c->n_arguments - 1] += n;
}

/* "P:inv:{MODEL:WORKER.EPOCH}", and ":BUCKET" for a bucket of it. */
static void add_inventory_key(redis_command *c, const redis_names *names, const store_request *r, int bucket)
{
    char tail[STORE_NAME_BYTES + 48];
    int  n = snprintf(tail, sizeof tail, ":%.*s.%" PRIu64 "}", SPAN_ARG(store_name_span(&r->id)), r->epoch);
    if (bucket >= 0)
        n += snprintf(tail + n, sizeof tail - (size_t)n, ":%d", bucket);
    add_key(c, names, "inv:{", store_name_span(&r->second));
    add_tail(c, tail, (size_t)n);
}

static void add_hashes(redis_command *c, const store_request *r)
{
    char  *start = c->text + c->n_text_bytes;
    size_t bytes = r->n_hashes * sizeof(uint64_t);
    assert(bytes <= sizeof c->text - c->n_text_bytes);
    for (uint32_t i = 0; i < r->n_hashes; i++) {
        uint64_t word = htole64(r->hashes[i]);
        memcpy(start + i * sizeof word, &word, sizeof word);
    }
    c->n_text_bytes += bytes;
    add(c, (span){start, bytes});
}

static void add_evalsha(redis_command *c, const redis_names *names, store_op op, int n_keys)
{
    add(c, SPAN("EVALSHA"));
    add(c, (span){names->shas[op], REDIS_SHA_BYTES});
    add_format(c, "%d", n_keys);
}

static void add_lease_keys(redis_command *c, const redis_names *names, const store_request *r)
{
    add_key(c, names, "{wk}:id:", store_name_span(&r->id));
    add_key(c, names, "{wk}:role:", store_name_span(&r->role));
}

static void make_worker_command(redis_command *c, const redis_names *names, const store_request *r)
{
    span id = store_name_span(&r->id), role = store_name_span(&r->role);
    switch ((int)r->op) {
    case STORE_OP_REGISTER:
        add_evalsha(c, names, r->op, 3);
        add_key(c, names, "{wk}:epoch", SPAN(""));
        add_lease_keys(c, names, r);
        add_format(c, "%u", r->ttl_ms);
        add_format(c, "%" PRIu64, r->epoch);
        add(c, id);
        add(c, role);
        add(c, store_name_span(&r->second));
        add(c, (span){r->capabilities.bytes, r->capabilities.size});
        break;
    case STORE_OP_RENEW:
        add_evalsha(c, names, r->op, 2);
        add_lease_keys(c, names, r);
        add_format(c, "%u", r->ttl_ms);
        add_format(c, "%" PRIu64, r->epoch);
        add(c, id);
        break;
    case STORE_OP_RELEASE:
        add_evalsha(c, names, r->op, 2);
        add_lease_keys(c, names, r);
        add_format(c, "%" PRIu64, r->epoch);
        add(c, id);
        break;
    case STORE_OP_LIST:
        add_evalsha(c, names, r->op, 1);
        add_key(c, names, "{wk}:role:", role);
        add_key(c, names, "{wk}:id:", SPAN(""));
        add(c, role);
        add_format(c, "%d", STORE_WORKERS_MAX);
        break;
    }
}

static void make_session_command(redis_command *c, const redis_names *names, const store_request *r)
{
    add_evalsha(c, names, r->op, 1);
    add_key(c, names, "ss:", store_name_span(&r->id));
    add_format(c, "%u", r->ttl_ms);
    if (r->op == STORE_OP_SESSION_GET)
        return;
    add_format(c, "%" PRIu64, r->fence);
    add(c, store_name_span(&r->second));
    add_format(c, "%" PRIu64, r->epoch);
    add_format(c, "%" PRIu64, r->n_blocks);
    add_format(c, "%" PRIu64, r->last_hash);
}

static void make_blocks_command(redis_command *c, const redis_names *names, const store_request *r)
{
    if (r->op == STORE_OP_READ) {
        add(c, SPAN("HGETALL"));
        add_inventory_key(c, names, r, (int)r->bucket);
        return;
    }
    add_evalsha(c, names, r->op, 1);
    add_inventory_key(c, names, r, -1);
    if (r->op == STORE_OP_PUBLISH)
        add_format(c, "%u", r->ttl_ms);
    add_format(c, "%d", STORE_BLOCK_BUCKETS);
    if (r->op == STORE_OP_PUBLISH)
        add_format(c, "%c", r->tier);
    add_hashes(c, r);
}

static void make_log_command(redis_command *c, const redis_names *names, const store_request *r)
{
    add_evalsha(c, names, r->op, 2);
    add_key(c, names, "log:{", store_name_span(&r->id));
    add_tail(c, "}", 1);
    add_key(c, names, "log:{", store_name_span(&r->id));
    add_tail(c, "}:e", 3);
    switch ((int)r->op) {
    case STORE_OP_LOG_OPEN:
        add_format(c, "%u", r->ttl_ms);
        add_format(c, "%u", r->lease_ms);
        add(c, store_name_span(&r->second));
        add_format(c, "%" PRId64, r->amount);
        break;
    case STORE_OP_LOG_APPEND:
        add_format(c, "%u", r->ttl_ms);
        add_format(c, "%u", r->lease_ms);
        add_format(c, "%" PRIu64, r->epoch);
        add_format(c, "%" PRIu64, r->n_before);
        add_format(c, "%d", r->is_last);
        add(c, r->entry);
        add_format(c, "%d", STORE_LOG_ENTRIES);
        add_format(c, "%d", STORE_LOG_BYTES);
        break;
    case STORE_OP_LOG_READ:
        add_format(c, "%" PRIu64, r->n_before);
        add_format(c, "%d", STORE_LOG_READ_ENTRIES);
        add_format(c, "%d", STORE_LOG_READ_BYTES);
        break;
    case STORE_OP_LOG_RELEASE:
        add_format(c, "%" PRIu64, r->epoch);
        add_format(c, "%d", r->is_last);
        break;
    }
}

void redis_command_make(redis_command *command, const redis_names *names, const store_request *request)
{
    command->n_arguments  = 0;
    command->n_text_bytes = 0;
    switch (request->op) {
    case STORE_OP_REGISTER:
    case STORE_OP_RENEW:
    case STORE_OP_RELEASE:
    case STORE_OP_LIST:
        make_worker_command(command, names, request);
        break;
    case STORE_OP_SESSION_SET:
    case STORE_OP_SESSION_GET:
        make_session_command(command, names, request);
        break;
    case STORE_OP_PUBLISH:
    case STORE_OP_FORGET:
    case STORE_OP_READ:
        make_blocks_command(command, names, request);
        break;
    case STORE_OP_COUNT:
        add_evalsha(command, names, request->op, 1);
        add_key(command, names, "n:", store_name_span(&request->id));
        add_format(command, "%u", request->ttl_ms);
        add_format(command, "%" PRId64, request->amount);
        break;
    case STORE_OP_LOG_OPEN:
    case STORE_OP_LOG_APPEND:
    case STORE_OP_LOG_READ:
    case STORE_OP_LOG_RELEASE:
        make_log_command(command, names, request);
        break;
    case N_STORE_OPS:
        assert(false);
    }
}

/* ----------------------------------------------------------------------------------------------------- replies */

static void *create_bounded_array(const redisReadTask *task, int n_elements)
{
    redis_reader_guard *guard = task->privdata;
    bool                fits  = task->parent ? !task->parent->parent && n_elements <= REDIS_INNER_ELEMENTS_MAX
                                             : n_elements <= REDIS_ELEMENTS_MAX;
    if (fits)
        return guard->create_array(task, n_elements);
    guard->refused = true;
    return NULL;
}

void redis_guard_reader(redis_reader_guard *guard, redisReader *reader)
{
    guard->functions             = *reader->fn;
    guard->create_array          = guard->functions.createArray;
    guard->functions.createArray = create_bounded_array;
    guard->refused               = false;
    reader->fn                   = &guard->functions;
    reader->privdata             = guard;
}

static bool is_string(const redisReply *r)
{
    return r->type == REDIS_REPLY_STRING;
}

static bool is_array_of(const redisReply *r, size_t n)
{
    return r->type == REDIS_REPLY_ARRAY && r->elements == n;
}

static span string_of(const redisReply *r)
{
    return (span){r->str, (size_t)r->len};
}

static bool read_u64(const redisReply *r, uint64_t *number)
{
    if (!is_string(r) || r->len == 0 || r->str[0] < '0' || r->str[0] > '9')
        return false;
    char *end;
    errno   = 0;
    *number = strtoull(r->str, &end, 10);
    return errno == 0 && end == r->str + r->len;
}

static bool read_i64(const redisReply *r, int64_t *number)
{
    char *end;
    if (!is_string(r) || r->len == 0)
        return false;
    errno   = 0;
    *number = strtoll(r->str, &end, 10);
    return errno == 0 && end == r->str + r->len;
}

/* The scripts' 1 and 0. */
static bool read_verdict(const redisReply *answer, store_reply *reply)
{
    reply->status = answer->integer ? STORE_OK : STORE_REFUSED;
    return answer->type == REDIS_REPLY_INTEGER;
}

static bool read_workers(const redisReply *answer, redis_lists *lists, store_reply *reply)
{
    if (answer->type != REDIS_REPLY_ARRAY || answer->elements > STORE_WORKERS_MAX)
        return false;
    for (size_t i = 0; i < answer->elements; i++) {
        const redisReply *w = answer->element[i];
        if (!is_array_of(w, 4) || !is_string(w->element[0]) || !is_string(w->element[2]) || !is_string(w->element[3]))
            return false;
        lists->workers[i].id           = string_of(w->element[0]);
        lists->workers[i].address      = string_of(w->element[2]);
        lists->workers[i].capabilities = string_of(w->element[3]);
        if (!read_u64(w->element[1], &lists->workers[i].epoch))
            return false;
    }
    store_sort_workers(lists->workers, (uint32_t)answer->elements);
    reply->workers   = lists->workers;
    reply->n_workers = (uint32_t)answer->elements;
    return true;
}

static bool read_session(const redisReply *answer, store_reply *reply)
{
    if (answer->type == REDIS_REPLY_NIL) {
        reply->status = STORE_NOT_FOUND;
        return true;
    }
    if (!is_array_of(answer, 5) || !is_string(answer->element[0]))
        return false;
    reply->session.worker = string_of(answer->element[0]);
    return read_u64(answer->element[1], &reply->session.epoch) && read_u64(answer->element[2], &reply->session.fence) &&
           read_u64(answer->element[3], &reply->session.n_blocks) &&
           read_u64(answer->element[4], &reply->session.last_hash);
}

static bool read_blocks(const redisReply *answer, redis_lists *lists, store_reply *reply)
{
    if (answer->type != REDIS_REPLY_ARRAY || answer->elements % 2)
        return false;
    uint32_t n = answer->elements / 2 < STORE_BUCKET_BLOCKS ? (uint32_t)answer->elements / 2 : STORE_BUCKET_BLOCKS;
    for (uint32_t i = 0; i < n; i++) {
        const redisReply *field = answer->element[2 * i], *value = answer->element[2 * i + 1];
        uint64_t          word;
        if (!is_string(field) || field->len != sizeof word || !is_string(value) || value->len != 1)
            return false;
        memcpy(&word, field->str, sizeof word);
        lists->blocks[i] = (store_block){le64toh(word), (uint8_t)value->str[0]};
    }
    reply->blocks   = lists->blocks;
    reply->n_blocks = n;
    return true;
}

/* The five numbers that a log's replies begin with. */
static bool read_log(const redisReply *answer, store_log *log)
{
    uint64_t is_done, is_held;
    if (answer->type != REDIS_REPLY_ARRAY || answer->elements < 5 || !read_u64(answer->element[0], &log->fence) ||
        !read_u64(answer->element[1], &log->n_entries) || !read_i64(answer->element[2], &log->note) ||
        !read_u64(answer->element[3], &is_done) || !read_u64(answer->element[4], &is_held))
        return false;
    log->is_done = is_done != 0;
    log->is_held = is_held != 0;
    return true;
}

static bool read_log_opened(const redisReply *answer, store_reply *reply)
{
    uint64_t is_granted;
    if (answer->type == REDIS_REPLY_INTEGER)
        return read_verdict(answer, reply) && reply->status == STORE_REFUSED;
    if (!read_log(answer, &reply->log) || answer->elements != 6 || !read_u64(answer->element[5], &is_granted))
        return false;
    reply->log.is_granted = is_granted != 0;
    return true;
}

static bool read_log_appended(const redisReply *answer, store_reply *reply)
{
    reply->status = answer->integer > 0 ? STORE_OK : answer->integer == 0 ? STORE_REFUSED : STORE_NOT_FOUND;
    return answer->type == REDIS_REPLY_INTEGER;
}

static bool read_log_entries(const redisReply *answer, redis_lists *lists, store_reply *reply)
{
    if (answer->type == REDIS_REPLY_NIL) {
        reply->status = STORE_NOT_FOUND;
        return true;
    }
    if (!read_log(answer, &reply->log) || answer->elements > 5 + STORE_LOG_READ_ENTRIES)
        return false;
    reply->entries   = lists->entries;
    reply->n_entries = (uint32_t)answer->elements - 5;
    for (uint32_t i = 0; i < reply->n_entries; i++) {
        if (!is_string(answer->element[5 + i]))
            return false;
        lists->entries[i] = string_of(answer->element[5 + i]);
    }
    return true;
}

bool redis_reply_read(const store_request *request, const redisReply *answer, redis_lists *lists, store_reply *reply)
{
    *reply = (store_reply){.status = STORE_OK};
    switch (request->op) {
    case STORE_OP_REGISTER:
        return read_u64(answer, &reply->epoch);
    case STORE_OP_LIST:
        return read_workers(answer, lists, reply);
    case STORE_OP_SESSION_GET:
        return read_session(answer, reply);
    case STORE_OP_READ:
        return read_blocks(answer, lists, reply);
    case STORE_OP_COUNT:
        return read_i64(answer, &reply->value);
    case STORE_OP_LOG_OPEN:
        return read_log_opened(answer, reply);
    case STORE_OP_LOG_APPEND:
        return read_log_appended(answer, reply);
    case STORE_OP_LOG_READ:
        return read_log_entries(answer, lists, reply);
    case STORE_OP_RENEW:
    case STORE_OP_RELEASE:
    case STORE_OP_SESSION_SET:
    case STORE_OP_PUBLISH:
    case STORE_OP_FORGET:
    case STORE_OP_LOG_RELEASE:
        return read_verdict(answer, reply);
    case N_STORE_OPS:
        break;
    }
    assert(false);
    return false;
}
