/* Models loaded through a cache of packed weights: the same logits, and a good file afterwards whatever was there
 * before. */
#include "model/weight_cache_file.h"

#include "base/log.h"
#include "support_run.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define DATA TESTS_DIR "/data/models/"

enum { N_TOKENS = 12, N_VOCAB = 128 };

static char  folder[64];                /* of this test */
static char  model_path[160];           /* folder/m/model.gguf */
static char  cache_path[200];           /* beside it */
static char  temporary_path[224];       /* while it is written */
static float plain[N_TOKENS * N_VOCAB]; /* logits without a cache */

static bool is_mapped(const char *path)
{
    char  line[512];
    bool  found = false;
    FILE *maps  = fopen("/proc/self/maps", "r");
    assert_non_null(maps);
    while (fgets(line, sizeof line, maps))
        found = found || strstr(line, path);
    fclose(maps);
    return found;
}

/* Loads, runs, and tells whether weights were mapped from `path`. */
static bool load_maps(const char *choice, model_quantization quantization, const char *path, float *logits)
{
    uint32_t tokens[N_TOKENS];
    for (uint32_t i = 0; i < N_TOKENS; i++)
        tokens[i] = i * 37 % N_VOCAB;
    model_options how    = {.quantization = quantization, .weight_cache = choice};
    runner        r      = runner_open_with("cpu", NULL, model_path, KERN_F32, 0, &how);
    bool          mapped = is_mapped(path);
    runner_sequence(&r, tokens, N_TOKENS, N_TOKENS, logits);
    runner_close(&r);
    assert_false(is_mapped(path));
    return mapped;
}

static void assert_loads(bool maps)
{
    float logits[N_TOKENS * N_VOCAB];
    assert_true(load_maps("auto", MODEL_AS_IT_IS, cache_path, logits) == maps);
    assert_memory_equal(plain, logits, sizeof logits);
    assert_int_not_equal(0, access(temporary_path, F_OK));
}

static struct stat about(const char *path)
{
    struct stat s = {0};
    if (stat(path, &s) != 0)
        fail_msg("%s is missing", path);
    return s;
}

static void copy(const char *from, const char *to)
{
    static char bytes[1 << 18];
    FILE       *in = fopen(from, "rb"), *out = fopen(to, "wb");
    assert_true(in && out);
    size_t n = fread(bytes, 1, sizeof bytes, in);
    assert_int_equal(n, fwrite(bytes, 1, n, out));
    fclose(in);
    fclose(out);
}

static void the_second_load_maps_what_the_first_wrote(void **state)
{
    (void)state;
    assert_loads(true); /* also the first: it maps what it wrote */
    struct stat first = about(cache_path);
    assert_int_equal(0600 | (about(model_path).st_mode & 0444), first.st_mode & 0777);
    assert_loads(true);
    assert_int_equal(first.st_ino, about(cache_path).st_ino);
}

static void every_quantization_has_a_file_of_its_own(void **state)
{
    (void)state;
    static float without[N_TOKENS * N_VOCAB], logits[N_TOKENS * N_VOCAB];
    char         path[224];
    snprintf(path, sizeof path, "%s.int4.quads.packed", model_path);
    assert_false(load_maps("off", MODEL_INT4, path, without));
    for (int i = 0; i < 2; i++) {
        assert_true(load_maps("auto", MODEL_INT4, path, logits));
        assert_memory_equal(without, logits, sizeof logits);
    }
    assert_loads(true);
}

static void nothing_is_written_when_it_is_off(void **state)
{
    (void)state;
    float logits[N_TOKENS * N_VOCAB];
    assert_false(load_maps("off", MODEL_AS_IT_IS, cache_path, logits));
    assert_int_not_equal(0, access(cache_path, F_OK));
}

/* What may stand in the cache's place; each is replaced. */
static void damage(uint32_t kind)
{
    char elsewhere[sizeof temporary_path];
    int  fd = open(cache_path, O_RDWR);
    snprintf(elsewhere, sizeof elsewhere, "%s.other", cache_path);
    assert_true(fd >= 0);
    switch (kind) {
    case 0: /* a bit of the header */
        assert_int_equal(1, pwrite(fd, "?", 1, 20));
        break;
    case 1: /* a weight's bytes */
        assert_int_equal(4, pwrite(fd, "!?!?", 4, about(cache_path).st_size - 100));
        break;
    case 2:
        assert_int_equal(0, ftruncate(fd, about(cache_path).st_size / 2));
        break;
    case 3:
        assert_int_equal(0, ftruncate(fd, 0));
        break;
    case 4: /* another version */
        assert_int_equal(1, pwrite(fd, "\x63", 1, 8));
        break;
    case 5:
        assert_int_equal(0, fchmod(fd, 0666));
        break;
    case 6:
        assert_int_equal(0, rename(cache_path, elsewhere));
        assert_int_equal(0, symlink(elsewhere, cache_path)); /* to a good one */
        break;
    default:
        unlink(cache_path);
        assert_int_equal(0, mkfifo(cache_path, 0600));
    }
    close(fd);
}

static void what_is_no_good_cache_is_replaced_by_one(void **state)
{
    (void)state;
    log_set_level(LOG_OFF);
    assert_loads(true);
    for (uint32_t kind = 0; kind < 8; kind++) {
        damage(kind);
        assert_loads(true);
        struct stat now;
        assert_true(lstat(cache_path, &now) == 0 && S_ISREG(now.st_mode) && (now.st_mode & 022) == 0);
        assert_loads(true);
        assert_int_equal(now.st_ino, about(cache_path).st_ino);
    }
    log_set_level(LOG_INFO);
}

static void a_model_that_changed_gets_another(void **state)
{
    (void)state;
    assert_loads(true);
    ino_t           before  = about(cache_path).st_ino;
    struct timespec times[] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    assert_int_equal(0, utimensat(AT_FDCWD, model_path, times, 0));
    assert_loads(true);
    assert_int_not_equal(before, about(cache_path).st_ino);
}

static void what_a_dead_writer_left_is_cleared(void **state)
{
    (void)state;
    copy(model_path, temporary_path);
    assert_loads(true);
    unlink(cache_path);
    assert_int_equal(0, link(model_path, temporary_path)); /* the name goes, the file stays as it is */
    assert_loads(true);
    unlink(cache_path);
    assert_int_equal(0, symlink(model_path, temporary_path)); /* not followed, and not waited for */
    float logits[N_TOKENS * N_VOCAB];
    assert_false(load_maps("auto", MODEL_AS_IT_IS, cache_path, logits));
    assert_memory_equal(plain, logits, sizeof logits);
    assert_true(about(model_path).st_size > 100000);
    unlink(temporary_path);
}

static void who_finds_a_writer_waits_for_it(void **state)
{
    (void)state;
    int   ready[2];
    pid_t writer;
    char  byte = 0;
    assert_int_equal(0, pipe(ready));
    if ((writer = fork()) == 0) { /* holds the lock, and dies with the file unfinished */
        int fd = open(temporary_path, O_RDWR | O_CREAT | O_EXCL, 0600);
        byte   = (char)(fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0);
        (void)!write(ready[1], &byte, 1);
        usleep(150000);
        (void)!write(ready[1], "!", 1);
        _exit(0);
    }
    assert_int_equal(1, read(ready[0], &byte, 1));
    assert_int_equal(1, byte);
    assert_loads(true);
    assert_int_equal(0, fcntl(ready[0], F_SETFL, O_NONBLOCK));
    assert_int_equal(1, read(ready[0], &byte, 1)); /* it was over before */
    assert_int_equal(writer, waitpid(writer, NULL, 0));
    close(ready[0]);
    close(ready[1]);
}

static void processes_that_start_at_once_share_one_file(void **state)
{
    (void)state;
    enum { N = 4 };
    pid_t children[N];
    for (int i = 0; i < N; i++)
        if ((children[i] = fork()) == 0) {
            float logits[N_TOKENS * N_VOCAB];
            bool  mapped = load_maps("auto", MODEL_AS_IT_IS, cache_path, logits);
            _exit(mapped && memcmp(plain, logits, sizeof logits) == 0 ? 0 : 1);
        }
    for (int i = 0; i < N; i++) {
        int status;
        assert_int_equal(children[i], waitpid(children[i], &status, 0));
        assert_int_equal(0, status);
    }
    assert_loads(true);
}

/* The model's folder is open to all, so the user's is taken; a folder that is named is made. */
static void a_folder_that_others_may_write_to_is_not_written_to(void **state)
{
    (void)state;
    char  user[128], named[128], mine[192];
    float logits[N_TOKENS * N_VOCAB];
    snprintf(user, sizeof user, "%s/xdg", folder);
    snprintf(named, sizeof named, "%s/named", folder);
    snprintf(mine, sizeof mine, "%s/m", folder);
    assert_int_equal(0, chmod(mine, 0777));
    setenv("XDG_CACHE_HOME", user, 1);
    for (int i = 0; i < 2; i++)
        assert_true(load_maps("auto", MODEL_AS_IT_IS, "/xdg/troupe/model.gguf-", logits));
    assert_int_not_equal(0, access(cache_path, F_OK));
    assert_true(load_maps(named, MODEL_AS_IT_IS, "/named/model.gguf-", logits));
    assert_int_equal(0700, about(named).st_mode & 0777);
    unsetenv("XDG_CACHE_HOME");
    log_set_level(LOG_OFF);
    assert_int_equal(0, chmod(mine, 01777)); /* as /tmp */
    assert_loads(true);
    assert_int_equal(0, chmod(mine, 0700));
    log_set_level(LOG_INFO);
}

static void a_disk_without_room_fails_no_load(void **state)
{
    (void)state;
    struct rlimit before, small;
    float         logits[N_TOKENS * N_VOCAB];
    signal(SIGXFSZ, SIG_IGN);
    log_set_level(LOG_OFF);
    getrlimit(RLIMIT_FSIZE, &before);
    small = (struct rlimit){4096, before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &small);
    bool mapped = load_maps("auto", MODEL_AS_IT_IS, cache_path, logits);
    setrlimit(RLIMIT_FSIZE, &before);
    log_set_level(LOG_INFO);
    assert_false(mapped);
    assert_memory_equal(plain, logits, sizeof logits);
    assert_true(access(cache_path, F_OK) != 0 && access(temporary_path, F_OK) != 0);
}

static void a_folder_of_safetensors_has_it_inside(void **state)
{
    (void)state;
    char path[sizeof model_path], file[256], from[192];
    snprintf(path, sizeof path, "%s/st", folder);
    mkdir(path, 0700);
    static const char *const files[] = {"config.json", "model.safetensors"};
    for (size_t i = 0; i < COUNT(files); i++) {
        snprintf(from, sizeof from, DATA "gqa_tied/%s", files[i]);
        snprintf(file, sizeof file, "%s/%s", path, files[i]);
        copy(from, file);
    }
    snprintf(file, sizeof file, "%s/weights.int8.quads.packed", path);
    char gguf[sizeof model_path];
    memcpy(gguf, model_path, sizeof gguf);
    memcpy(model_path, path, sizeof model_path);
    float logits[2][N_TOKENS * N_VOCAB];
    for (int i = 0; i < 2; i++)
        assert_true(load_maps("auto", MODEL_INT8, file, logits[i]));
    assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
    memcpy(model_path, gguf, sizeof gguf);
}

static int start(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/troupe-cache-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    char path[100];
    snprintf(path, sizeof path, "%s/m", folder);
    if (mkdir(path, 0700) != 0)
        return -1;
    snprintf(model_path, sizeof model_path, "%s/model.gguf", path);
    snprintf(cache_path, sizeof cache_path, "%s.quads.packed", model_path);
    snprintf(temporary_path, sizeof temporary_path, "%s.tmp", cache_path);
    copy(DATA "gqa_tied.gguf", model_path);
    unsetenv("XDG_CACHE_HOME");
    setenv("HOME", folder, 1);
    return load_maps("off", MODEL_AS_IT_IS, cache_path, plain) ? -1 : 0;
}

static int end(void **state)
{
    (void)state;
    char command[256];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    return system(command);
}

static int without_cache(void **state)
{
    (void)state;
    char command[256];
    snprintf(command, sizeof command, "rm -rf '%s/.cache' '%s/m/'*.packed*", folder, folder);
    return system(command);
}

#define TEST(name) cmocka_unit_test_setup(name, without_cache)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_second_load_maps_what_the_first_wrote),
        TEST(every_quantization_has_a_file_of_its_own),
        TEST(nothing_is_written_when_it_is_off),
        TEST(what_is_no_good_cache_is_replaced_by_one),
        TEST(a_model_that_changed_gets_another),
        TEST(what_a_dead_writer_left_is_cleared),
        TEST(who_finds_a_writer_waits_for_it),
        TEST(processes_that_start_at_once_share_one_file),
        TEST(a_folder_that_others_may_write_to_is_not_written_to),
        TEST(a_disk_without_room_fails_no_load),
        TEST(a_folder_of_safetensors_has_it_inside),
    };
    return cmocka_run_group_tests(tests, start, end);
}
