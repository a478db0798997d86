/* The flight recorder: what actors say is on disk, within its bound, and a disk that fails costs records, not time. */
#include "actor/recorder.h"

#include "actor/record_files.h"
#include "base/log.h"
#include "base/metric.h"
#include "bus/envelope.h"
#include "bus/messages.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { BODY_BYTES = 16 << 10 };

typedef struct {
    char folder[64];
} stage;

static void empty_folder(const char *folder, bool count, uint32_t *n_files, uint64_t *bytes)
{
    DIR *stream = opendir(folder);
    assert_non_null(stream);
    for (const struct dirent *entry; (entry = readdir(stream));) {
        struct stat about;
        char        path[512];
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (entry->d_name[0] == '.' || stat(path, &about) != 0)
            continue;
        if (!count)
            unlink(path);
        else {
            ++*n_files;
            *bytes += (uint64_t)about.st_size;
            assert_int_equal(about.st_mode & 0777, 0600);
        }
    }
    closedir(stream);
}

static int open_stage(void **state)
{
    stage *s = calloc(1, sizeof *s);
    strcpy(s->folder, "/tmp/troupe-recorder-XXXXXX");
    *state = s;
    log_set_level(LOG_OFF);
    return mkdtemp(s->folder) ? 0 : -1;
}

static int close_stage(void **state)
{
    stage *s = *state;
    empty_folder(s->folder, false, NULL, NULL);
    rmdir(s->folder);
    free(s);
    return 0;
}

static recorder *start(const stage *s, uint64_t bytes_max)
{
    error            err;
    recorder_options options = {.folder = s->folder, .service = "tester", .bytes_max = bytes_max};
    recorder        *r       = recorder_new(&options, &err);
    if (!r)
        fail_msg("%s", err.text);
    return r;
}

static void say(recorder *r, uint16_t type, uint64_t sequence, span body)
{
    uint8_t  frame[ENVELOPE_BYTES];
    envelope e = {.type = type, .protocol = 1, .incarnation = 3, .sequence = sequence};
    envelope_encode(&e, frame);
    recorder_take(r, RECORD_OUT, "tester-1", "other-2", (span){(char *)frame, sizeof frame}, body);
}

typedef struct {
    uint32_t n_files, n_records, n_pinned;
    uint64_t n_bytes, n_lost, last_sequence;
    bool     in_order;
} found;

static void read_file(const char *path, found *f)
{
    static char      bytes[32 << 20];
    recording_header h;
    record           r;
    envelope         e;
    error            err;
    int              fd = open(path, O_RDONLY);
    ssize_t          n  = read(fd, bytes, sizeof bytes);
    close(fd);
    span rest = {bytes, n > 0 ? (size_t)n : 0};
    if (!recording_read_header(&rest, &h, &err))
        fail_msg("%s: %s", path, err.text);
    recording_state state;
    while ((state = recording_next(&rest, &r)) == RECORDING_RECORD) {
        f->n_lost += r.n_lost;
        if (r.kind == RECORD_GAP)
            continue;
        assert_true(envelope_decode(r.envelope, &e, &err));
        if (e.type == MSG_EXECUTOR_READY) {
            f->n_pinned++;
            continue;
        }
        f->n_records++;
        f->in_order      = f->in_order && e.sequence > f->last_sequence;
        f->last_sequence = e.sequence;
    }
    assert_int_equal(state, RECORDING_END);
}

/* Reads all files, in the order of their names. */
static found look(const stage *s)
{
    found           f     = {.in_order = true};
    struct dirent **names = NULL;
    empty_folder(s->folder, true, &f.n_files, &f.n_bytes);
    int n = scandir(s->folder, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", s->folder, names[i]->d_name);
        if (names[i]->d_name[0] != '.')
            read_file(path, &f);
        free(names[i]);
    }
    free(names);
    return f;
}

static void messages_are_on_disk_without_chatter(void **state)
{
    recorder *r = start(*state, RECORDER_BYTES_MIN);
    for (uint64_t i = 1; i <= 10; i++)
        say(r, MSG_GEN_TOKENS, i, SPAN("body"));
    say(r, MSG_NODE_HEARTBEAT, 11, SPAN("body"));
    say(r, MSG_NODE_CREDIT, 12, SPAN("body"));
    recorder_flush(r);
    found f = look(*state); /* as a killed process would leave it: it has not ended */
    assert_true(f.n_files == 1 && f.n_records == 10 && f.in_order && f.last_sequence == 10 && f.n_lost == 0);
    recorder_free(&r);
}

static void the_oldest_files_go_and_the_bound_holds(void **state)
{
    static char body[BODY_BYTES];
    recorder   *r = start(*state, RECORDER_BYTES_MIN);
    say(r, MSG_EXECUTOR_READY, 1, SPAN("what it is"));
    for (uint64_t i = 2; i <= 400; i++) { /* six times the bound */
        say(r, MSG_GEN_TOKENS, i, (span){body, sizeof body});
        if (i % 50 == 0)
            recorder_flush(r);
    }
    recorder_free(&r);
    found f = look(*state);
    assert_true(f.n_bytes <= RECORDER_BYTES_MIN && f.n_bytes > RECORDER_BYTES_MIN / 2);
    assert_true(f.in_order && f.last_sequence == 400 && f.n_lost == 0);
    assert_int_equal(f.n_pinned, f.n_files); /* each file says which model it was */
}

static void what_dead_processes_left_counts_into_the_bound(void **state)
{
    static char body[BODY_BYTES];
    for (int life = 0; life < 4; life++) {
        recorder *r = start(*state, RECORDER_BYTES_MIN);
        for (uint64_t i = 1; i <= 40; i++)
            say(r, MSG_GEN_TOKENS, i, (span){body, sizeof body});
        recorder_free(&r);
    }
    found f = look(*state);
    assert_true(f.n_bytes <= RECORDER_BYTES_MIN && f.n_bytes > RECORDER_BYTES_MIN / 2);
}

static void a_living_process_keeps_its_files(void **state)
{
    static char body[BODY_BYTES];
    recorder   *first = start(*state, RECORDER_BYTES_MIN);
    for (uint64_t i = 1; i <= 40; i++)
        say(first, MSG_GEN_TOKENS, i, (span){body, sizeof body});
    recorder_flush(first);
    recorder *second = start(*state, RECORDER_BYTES_MIN);
    for (uint64_t i = 1; i <= 100; i++)
        say(second, MSG_GEN_TOKENS, i, (span){body, sizeof body});
    recorder_flush(second);
    found f = look(*state);
    assert_true(f.n_records > 40 + 30 && f.n_bytes <= 2 * RECORDER_BYTES_MIN);
    recorder_free(&first);
    recorder_free(&second);
}

/* A disk that is full, played by the limit on file sizes. */
static void a_full_disk_costs_records_and_marks_a_gap(void **state)
{
    static char   body[BODY_BYTES];
    struct rlimit before, small;
    recorder     *r    = start(*state, RECORDER_BYTES_MIN);
    double        lost = metric_value(metric_find("troupe_recorder_lost_total", ""));
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    say(r, MSG_GEN_TOKENS, 1, SPAN("before"));
    recorder_flush(r);
    small = (struct rlimit){.rlim_cur = 1000, .rlim_max = before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &small);
    for (uint64_t i = 2; i <= 11; i++)
        say(r, MSG_GEN_TOKENS, i, (span){body, sizeof body});
    recorder_flush(r);
    setrlimit(RLIMIT_FSIZE, &before);
    say(r, MSG_GEN_TOKENS, 12, SPAN("after"));
    recorder_free(&r);
    found f = look(*state);
    assert_true(f.n_records == 2 && f.n_lost == 10 && f.last_sequence == 12);
    assert_true(metric_value(metric_find("troupe_recorder_lost_total", "")) - lost == 10);
}

static void what_does_not_fit_the_buffer_is_a_gap(void **state)
{
    recorder *r    = start(*state, 64 << 20);
    size_t    size = RECORD_BYTES_MAX;
    char     *body = calloc(1, size);
    say(r, MSG_GEN_TOKENS, 1, SPAN("before"));
    say(r, MSG_GEN_TOKENS, 2, (span){body, size});
    say(r, MSG_GEN_TOKENS, 3, SPAN("after"));
    recorder_free(&r);
    free(body);
    found f = look(*state);
    assert_true(f.n_records == 2 && f.n_lost == 1 && f.last_sequence == 3);
}

enum { TALKERS = 4, TALK = 2000 };

static void *talk(void *arg)
{
    for (uint64_t i = 1; i <= TALK; i++)
        say(arg, MSG_GEN_TOKENS, i, SPAN("body"));
    return NULL;
}

static void many_threads_may_talk_at_once(void **state)
{
    recorder *r = start(*state, 64 << 20);
    pthread_t threads[TALKERS];
    for (int i = 0; i < TALKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, talk, r), 0);
    for (int i = 0; i < TALKERS; i++)
        pthread_join(threads[i], NULL);
    recorder_free(&r);
    found f = look(*state);
    assert_int_equal(f.n_records + f.n_lost, TALKERS * TALK);
}

static void a_folder_that_is_not_private_is_refused(void **state)
{
    stage           *s = *state;
    error            err;
    recorder_options options = {.folder = s->folder, .service = "tester", .bytes_max = RECORDER_BYTES_MIN};
    chmod(s->folder, 0770);
    assert_null(recorder_new(&options, &err));
    assert_non_null(strstr(err.text, "others may write"));
    options.folder = "/no/such/folder";
    assert_null(recorder_new(&options, &err));
    assert_non_null(strstr(err.text, "/no/such/folder"));
    options = (recorder_options){.folder = s->folder, .service = "tester", .bytes_max = RECORDER_BYTES_MIN - 1};
    chmod(s->folder, 0700);
    assert_null(recorder_new(&options, &err));
    assert_non_null(strstr(err.text, "--record-bytes"));
}

int main(void)
{
#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, open_stage, close_stage)
    static const struct CMUnitTest tests[] = {
        WITH_FOLDER(messages_are_on_disk_without_chatter),
        WITH_FOLDER(the_oldest_files_go_and_the_bound_holds),
        WITH_FOLDER(what_dead_processes_left_counts_into_the_bound),
        WITH_FOLDER(a_living_process_keeps_its_files),
        WITH_FOLDER(a_full_disk_costs_records_and_marks_a_gap),
        WITH_FOLDER(what_does_not_fit_the_buffer_is_a_gap),
        WITH_FOLDER(many_threads_may_talk_at_once),
        WITH_FOLDER(a_folder_that_is_not_private_is_refused),
    };
    return cmocka_run_group_tests_name("actor/recorder", tests, NULL, NULL);
}
