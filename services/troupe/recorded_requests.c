/* See recorded_requests.h. Bodies stay where the files were read to; tokens are copied, for they lie unaligned. */
#include "troupe/recorded_requests.h"

#include "actor/recording.h"
#include "base/hash.h"
#include "base/random.h"
#include "bus/envelope.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUCKETS = 1 << 16 };

typedef struct {
    char  *data;
    size_t size;
} file_bytes;

struct recorded_requests {
    file_bytes        *files;
    uint32_t           n_files;
    arena             *kept;    /* requests and tokens */
    arena             *decoded; /* the message in hand */
    hash_key           key;
    recorded_request  *buckets[BUCKETS];
    recorded_request **by_time;
    uint32_t           n;
    uint64_t           n_lost, fingerprint; /* as the file in hand said last */
};

/* ---- messages ---- */

static recorded_request *request_of(recorded_requests *all, const envelope *e, int64_t unix_ms)
{
    recorded_request **bucket = &all->buckets[hash_64(all->key, e->request.bytes, sizeof e->request.bytes) % BUCKETS];
    recorded_request  *r      = *bucket;
    while (r && !request_id_equal(&r->id, &e->request))
        r = r->next_of_bucket;
    if (!r) {
        r = arena_take(all->kept, sizeof *r);
        if (!r)
            return NULL;
        r->id             = e->request;
        r->unix_ms        = unix_ms;
        r->next_of_bucket = *bucket;
        *bucket           = r;
        all->n++;
    }
    r->unix_ms     = unix_ms < r->unix_ms ? unix_ms : r->unix_ms;
    r->fingerprint = all->fingerprint ? all->fingerprint : r->fingerprint;
    return r;
}

static bool keep_tokens(recorded_requests *all, recorded_request *r, recorded_tokens **list, uint32_t choice,
                        uint32_t index, const uint32_t *tokens, uint32_t n)
{
    if (n == 0 || index > RECORDED_INDEX_MAX || n > RECORDED_INDEX_MAX - index)
        return true;
    recorded_tokens *piece = arena_take(all->kept, sizeof *piece);
    uint32_t        *copy  = arena_take_array(all->kept, n, sizeof *copy);
    if (!piece || !copy)
        return false;
    memcpy(copy, tokens, n * sizeof *copy);
    *piece = (recorded_tokens){.choice = choice, .index = index, .n_tokens = n, .tokens = copy, .next = *list};
    *list  = piece;
    if (r->ends[choice] < index + n)
        r->ends[choice] = index + n;
    return true;
}

static bool ends_by_tokens(finish_reason why)
{
    return why == FINISH_REASON_STOP || why == FINISH_REASON_LENGTH;
}

static bool on_tokens(recorded_requests *all, recorded_request *r, const gen_tokens *m)
{
    if (m->choice >= RECORDED_CHOICES_MAX)
        return true;
    r->has_gen_tokens = true;
    if (m->finish != FINISH_REASON_NONE) {
        r->finish[m->choice] = (uint8_t)m->finish;
        r->whole[m->choice]  = ends_by_tokens(m->finish);
    }
    return keep_tokens(all, r, &r->tokens, m->choice, m->index, m->tokens, m->n_tokens);
}

static bool on_delta(recorded_requests *all, recorded_request *r, const text_delta *m)
{
    if (m->choice >= RECORDED_CHOICES_MAX || m->prompt)
        return true;
    if (m->finish != FINISH_REASON_NONE && r->finish[m->choice] == FINISH_REASON_NONE) {
        r->finish[m->choice]      = (uint8_t)m->finish;
        r->delta_whole[m->choice] = ends_by_tokens(m->finish) && m->stop_reason.size == 0;
    }
    return keep_tokens(all, r, &r->delta_tokens, m->choice, m->index, m->tokens, m->n_tokens);
}

static void keep_body(span *kept, uint32_t *attempt, const envelope *e, span body)
{
    if (kept->size > 0 && *attempt <= e->attempt)
        return;
    *kept    = body;
    *attempt = e->attempt;
}

/* False when memory is full. A message that can't be read is none of ours. */
static bool take_message(recorded_requests *all, const record *m)
{
    envelope    e;
    const void *body;
    if (!envelope_decode(m->envelope, &e, NULL))
        return true;
    bool wanted = e.type == MSG_EXECUTOR_READY || e.type == MSG_GEN_REQUEST || e.type == MSG_GEN_TOKENS ||
                  e.type == MSG_TEXT_REQUEST || e.type == MSG_TEXT_DELTA;
    arena_reset(all->decoded);
    if (!wanted || !message_decode(e.type, m->body, all->decoded, &body, NULL))
        return true;
    if (e.type == MSG_EXECUTOR_READY) {
        all->fingerprint = ((const executor_ready *)body)->fingerprint;
        return true;
    }
    recorded_request *r = request_of(all, &e, m->unix_ms);
    if (!r)
        return false;
    if (e.type == MSG_GEN_TOKENS)
        return on_tokens(all, r, body);
    if (e.type == MSG_TEXT_DELTA)
        return on_delta(all, r, body);
    if (e.type == MSG_GEN_REQUEST)
        keep_body(&r->gen, &r->gen_attempt, &e, m->body);
    else {
        keep_body(&r->text, &r->text_attempt, &e, m->body);
        r->text_unix_ms = m->unix_ms;
    }
    return true;
}

/* ---- files ---- */

static bool take_file(recorded_requests *all, span file, const char *name, FILE *warnings, error *err)
{
    recording_header head;
    record           m;
    error            why;
    recording_state  state;
    span             rest = file;
    all->fingerprint      = 0;
    if (!recording_read_header(&rest, &head, &why)) {
        if (warnings)
            fprintf(warnings, "%s: %s\n", name, why.text);
        return true;
    }
    while ((state = recording_next(&rest, &m)) == RECORDING_RECORD) {
        all->n_lost += m.kind == RECORD_GAP ? m.n_lost : 0;
        if (m.kind != RECORD_GAP && !take_message(all, &m))
            return error_set(err, ERR_NO_MEMORY, "%s: more requests than its bytes can hold", name);
    }
    if (state != RECORDING_END && warnings)
        fprintf(warnings, "%s: %s at byte %zu; what stands before is used\n", name,
                state == RECORDING_TORN ? "the last record is not whole, as when the process was killed,"
                                        : "a record is damaged",
                file.size - rest.size);
    return true;
}

static bool read_whole(int fd, file_bytes *out, const char *name, error *err)
{
    struct stat about;
    if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode))
        return error_set(err, ERR_IO, "%s: not a plain file", name);
    out->data = malloc((size_t)about.st_size + 1);
    if (!out->data)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory for %lld bytes", name, (long long)about.st_size);
    while (out->size < (size_t)about.st_size) {
        ssize_t n = read(fd, out->data + out->size, (size_t)about.st_size - out->size);
        if (n < 0)
            return error_set(err, ERR_IO, "%s: %s", name, strerror(errno));
        if (n == 0)
            break;
        out->size += (size_t)n;
    }
    return true;
}

static int is_recording(const struct dirent *entry)
{
    size_t size = strlen(entry->d_name);
    return size > 4 && strcmp(entry->d_name + size - 4, ".rec") == 0;
}

/* A file that its process deleted meanwhile is no loss: the ring went on. */
static bool read_files(recorded_requests *all, const char *folder, struct dirent **names, int n, error *err)
{
    int dir    = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    all->files = calloc((size_t)n, sizeof *all->files);
    bool ok    = dir >= 0 && all->files;
    if (!ok)
        error_set(err, ERR_IO, "%s: %s", folder, strerror(errno));
    for (int i = 0; ok && i < n; i++) {
        int fd = openat(dir, names[i]->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0 && errno != ENOENT)
            ok = error_set(err, ERR_IO, "%s/%s: %s", folder, names[i]->d_name, strerror(errno));
        if (fd < 0)
            continue;
        ok = read_whole(fd, &all->files[i], names[i]->d_name, err);
        close(fd);
    }
    if (dir >= 0)
        close(dir);
    all->n_files = all->files ? (uint32_t)n : 0;
    return ok;
}

/* ---- the table ---- */

static int compare_time(const void *a, const void *b)
{
    const recorded_request *first = *(recorded_request *const *)a, *second = *(recorded_request *const *)b;
    if (first->unix_ms != second->unix_ms)
        return first->unix_ms < second->unix_ms ? -1 : 1;
    return memcmp(first->id.bytes, second->id.bytes, sizeof first->id.bytes);
}

static bool sort_by_time(recorded_requests *all, error *err)
{
    uint32_t n   = 0;
    all->by_time = malloc((all->n + 1) * sizeof(recorded_request *));
    if (!all->by_time)
        return error_set(err, ERR_NO_MEMORY, "no memory for %u requests", all->n);
    for (uint32_t i = 0; i < BUCKETS; i++)
        for (recorded_request *r = all->buckets[i]; r; r = r->next_of_bucket) {
            if (!r->has_gen_tokens) {
                r->tokens = r->delta_tokens;
                memcpy(r->whole, r->delta_whole, sizeof r->whole);
            }
            all->by_time[n++] = r;
        }
    qsort(all->by_time, n, sizeof(recorded_request *), compare_time);
    return true;
}

/* A record names one request and one list of tokens at most, and takes more bytes than a sixteenth of both. */
static bool open_memory(recorded_requests *all, size_t n_bytes, error *err)
{
    all->decoded = arena_new(2 * (size_t)BUS_MESSAGE_BYTES_MAX, err);
    all->kept    = all->decoded ? arena_new(16 * n_bytes + (1 << 20), err) : NULL;
    return all->kept && random_bytes(&all->key, sizeof all->key, err);
}

static recorded_requests *new_table(error *err)
{
    recorded_requests *all = calloc(1, sizeof *all);
    if (!all)
        error_set(err, ERR_NO_MEMORY, "no memory for recorded requests");
    return all;
}

recorded_requests *recorded_requests_of(span file, error *err)
{
    recorded_requests *all = new_table(err);
    if (all &&
        (!open_memory(all, file.size, err) || !take_file(all, file, "file", NULL, err) || !sort_by_time(all, err)))
        recorded_requests_free(&all);
    return all;
}

recorded_requests *recorded_requests_read(const char *folder, FILE *warnings, error *err)
{
    struct dirent    **names = NULL;
    size_t             bytes = 0;
    int                n     = scandir(folder, &names, is_recording, alphasort);
    recorded_requests *all   = n > 0 ? new_table(err) : NULL;
    bool               ok    = all && read_files(all, folder, names, n, err);
    if (n < 0)
        error_set(err, ERR_IO, "%s: %s", folder, strerror(errno));
    if (n == 0)
        error_set(err, ERR_NOT_FOUND, "%s: there is no file of the flight recorder (*.rec) in this folder", folder);
    for (uint32_t i = 0; ok && i < all->n_files; i++)
        bytes += all->files[i].size;
    ok = ok && open_memory(all, bytes, err);
    for (uint32_t i = 0; ok && i < all->n_files; i++)
        ok = !all->files[i].data ||
             take_file(all, (span){all->files[i].data, all->files[i].size}, names[i]->d_name, warnings, err);
    ok = ok && sort_by_time(all, err);
    for (int i = 0; i < n; i++)
        free(names[i]);
    free(names);
    if (!ok)
        recorded_requests_free(&all);
    return all;
}

void recorded_requests_free(recorded_requests **all_to_free)
{
    recorded_requests *all = *all_to_free;
    if (!all)
        return;
    for (uint32_t i = 0; i < all->n_files; i++)
        free(all->files[i].data);
    free(all->files);
    free(all->by_time);
    arena_free(&all->kept);
    arena_free(&all->decoded);
    free(all);
    *all_to_free = NULL;
}

uint32_t recorded_requests_n(const recorded_requests *all)
{
    return all->n;
}

const recorded_request *recorded_requests_at(const recorded_requests *all, uint32_t i)
{
    return all->by_time[i];
}

uint64_t recorded_requests_n_lost(const recorded_requests *all)
{
    return all->n_lost;
}

const recorded_request *recorded_requests_find(const recorded_requests *all, const char *digits, error *err)
{
    const recorded_request *found = NULL;
    for (uint32_t i = 0; i < all->n; i++) {
        char id[33];
        request_id_print(&all->by_time[i]->id, id);
        if (strncmp(id, digits, strlen(digits)) != 0)
            continue;
        if (found) {
            error_set(err, ERR_INVALID, "%s: several recorded requests begin with this; give more digits", digits);
            return NULL;
        }
        found = all->by_time[i];
    }
    if (!found)
        error_set(err, ERR_NOT_FOUND,
                  "%s: there is no such request in the recording (ids are the gateway's run=, not the client's id)",
                  digits);
    return found;
}
