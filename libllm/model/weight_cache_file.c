/* See weight_cache_file.h. */
#include "model/weight_cache_file.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { WAIT_S = 60, POLL_MS = 20 };

bool weight_cache_file_init(weight_cache_file *f, const char *choice, const char *model_path,
                            const weight_cache_key *key)
{
    error err;
    *f =
        (weight_cache_file){.key = *key, .is_wanted = strcmp(choice, WEIGHT_CACHE_AUTO) != 0, .folder = -1, .file = -1};
    f->n_places = weight_cache_places(choice, model_path, key, f->places, &err);
    if (f->n_places == 0)
        log_warn("no cache of packed weights", "why=\"%s\"", err.text);
    return f->n_places > 0;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

static bool map_file(weight_cache_file *f, const weight_cache_place *place, int file)
{
    error why;
    char  path[PATH_MAX + NAME_MAX + 2];
    snprintf(path, sizeof path, "%s/%s", place->folder, place->name);
    weight_cache_state state = WEIGHT_CACHE_BAD;
    if (mapped_file_of(&f->map, file, path, &why))
        state = weight_cache_read(f->map.data, f->map.size, &f->key, &f->cache, &why);
    if (state == WEIGHT_CACHE_GOOD) {
        /* Huge pages where the file system has them; and the disk is read while the rest of the program starts. */
        (void)madvise((void *)f->map.data, f->map.size, MADV_HUGEPAGE);
        (void)madvise((void *)f->map.data, f->map.size, MADV_WILLNEED);
        log_info("packed weights are mapped", "file=\"%s\"", path);
        return true;
    }
    if (state == WEIGHT_CACHE_OLD)
        log_info("a cache of packed weights is out of date", "file=\"%s\" why=\"%s\"", path, why.text);
    else
        log_warn("a cache of packed weights is not used", "file=\"%s\" why=\"%s\"", path, why.text);
    weight_cache_file_unmap(f);
    return false;
}

bool weight_cache_file_map(weight_cache_file *f)
{
    for (uint32_t i = 0; i < f->n_places; i++) {
        error err    = {0};
        int   folder = weight_cache_open_folder(&f->places[i], false, &err);
        if (folder < 0)
            continue;
        int file = weight_cache_open_file(&f->places[i], folder, &err);
        close(folder);
        if (file < 0) {
            if (err.code != ERR_NOT_FOUND)
                log_warn("a cache of packed weights is not used", "why=\"%s\"", err.text);
            continue;
        }
        bool good = map_file(f, &f->places[i], file);
        close(file);
        if (good)
            return true;
    }
    return false;
}

void weight_cache_file_unmap(weight_cache_file *f)
{
    mapped_file_close(&f->map);
    f->cache = (weight_cache){0};
}

/* ---- making one ------------------------------------------------------------------------------------------------ */

static void temporary_name(char name[NAME_MAX + 8], const weight_cache_place *place)
{
    snprintf(name, NAME_MAX + 8, "%s.tmp", place->name);
}

/* Of a file that another process writes or wrote: waits for its lock, and removes it if it still has that name, for
 * then its writer died. False when the wait was too long or it can't be removed. */
static bool outlive(int folder, const char *name, error *err)
{
    struct stat of_name, of_file;
    int64_t     end  = clock_now_ns(clock_system()) + WAIT_S * NS_PER_S;
    int         file = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (file < 0)
        return errno == ENOENT || error_set(err, ERR_IO, "%s: %s", name, strerror(errno));
    int status;
    while ((status = flock(file, LOCK_EX | LOCK_NB)) != 0 && errno == EWOULDBLOCK && clock_now_ns(clock_system()) < end)
        nanosleep(&(struct timespec){.tv_nsec = POLL_MS * NS_PER_MS}, NULL);
    bool ok = status == 0 || error_set(err, ERR_TIMEOUT, "%s: another process holds it: %s", name, strerror(errno));
    if (ok && fstat(file, &of_file) == 0 && fstatat(folder, name, &of_name, AT_SYMLINK_NOFOLLOW) == 0 &&
        of_name.st_ino == of_file.st_ino && of_name.st_dev == of_file.st_dev && unlinkat(folder, name, 0) != 0)
        ok = error_set(err, ERR_IO, "%s: %s", name, strerror(errno));
    close(file);
    return ok;
}

/* A new file under the temporary name, locked; -1 with ERR_GONE when another process is or was at it. */
static int create_locked(const weight_cache_place *place, int folder, error *err)
{
    char name[NAME_MAX + 8];
    temporary_name(name, place);
    int file = openat(folder, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file < 0) {
        error_set(err, errno == EEXIST ? ERR_GONE : ERR_IO, "%s/%s: %s", place->folder, name, strerror(errno));
    } else if (flock(file, LOCK_EX | LOCK_NB) != 0) {
        bool taken = errno == EWOULDBLOCK; /* else this file system has no locks */
        error_set(err, taken ? ERR_GONE : ERR_IO, "%s/%s: %s", place->folder, name, strerror(errno));
        if (!taken)
            unlinkat(folder, name, 0);
        close(file);
        file = -1;
    }
    return file;
}

static weight_cache_begin begin_at(weight_cache_file *f, uint32_t place, error *err)
{
    char name[NAME_MAX + 8];
    temporary_name(name, &f->places[place]);
    f->folder = weight_cache_open_folder(&f->places[place], true, err);
    f->place  = place;
    if (f->folder < 0)
        return WEIGHT_CACHE_NOWHERE;
    f->file = create_locked(&f->places[place], f->folder, err);
    if (f->file >= 0)
        return WEIGHT_CACHE_BEGUN;
    return err->code == ERR_GONE && outlive(f->folder, name, err) ? WEIGHT_CACHE_BY_OTHERS : WEIGHT_CACHE_NOWHERE;
}

static void close_all(weight_cache_file *f)
{
    weight_cache_writer_free(&f->writer);
    if (f->file >= 0)
        close(f->file);
    if (f->folder >= 0)
        close(f->folder);
    f->file = f->folder = -1;
}

weight_cache_begin weight_cache_file_begin(weight_cache_file *f, uint32_t n_weights_max)
{
    for (uint32_t i = 0; i < f->n_places; i++) {
        error              err   = {0};
        weight_cache_begin begun = begin_at(f, i, &err);
        if (begun == WEIGHT_CACHE_BEGUN) {
            f->writer = weight_cache_writer_new(f->file, n_weights_max, &err);
            if (f->writer)
                return WEIGHT_CACHE_BEGUN;
            weight_cache_file_end(f, false);
            return WEIGHT_CACHE_NOWHERE;
        }
        close_all(f);
        if (begun == WEIGHT_CACHE_BY_OTHERS)
            return begun;
        if (f->is_wanted)
            log_warn("packed weights can't be kept here", "why=\"%s\"", err.text);
        else
            log_debug("packed weights can't be kept here", "why=\"%s\"", err.text);
    }
    return WEIGHT_CACHE_NOWHERE;
}

bool weight_cache_file_end(weight_cache_file *f, bool complete)
{
    error                     err   = {0};
    const weight_cache_place *place = &f->places[f->place];
    char                      name[NAME_MAX + 8];
    temporary_name(name, place);
    bool ok = complete && weight_cache_finish(f->writer, &f->key, &err);
    ok      = ok && (fchmod(f->file, 0600 | (place->model_mode & 0444)) == 0 &&
                        renameat(f->folder, name, f->folder, place->name) == 0
                         ? true
                         : error_set(&err, ERR_IO, "renaming: %s", strerror(errno)));
    if (ok) {
        (void)fsync(f->folder); /* after a crash it is there or it isn't: both are fine */
        log_info("packed weights are kept", "file=\"%s/%s\"", place->folder, place->name);
    } else {
        unlinkat(f->folder, name, 0);
        if (complete)
            log_warn("packed weights can't be kept here", "file=\"%s/%s\" why=\"%s\"", place->folder, place->name,
                     err.text);
    }
    close_all(f);
    return ok;
}
