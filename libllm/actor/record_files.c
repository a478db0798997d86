/* See record_files.h. */
#include "actor/record_files.h"

#include "base/clock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SEGMENTS_WANTED = 16, NAME_BYTES = 64 };

typedef struct {
    int      fd; /* open as long as it is ours: it holds the lock */
    uint64_t bytes;
    int64_t  modified_ns;
    char     name[NAME_BYTES];
} segment;

struct record_files {
    int      folder_fd;
    char     service[RECORDING_SERVICE_BYTES];
    uint64_t incarnation, n_begun, bytes, bytes_max, segment_bytes;
    segment  segments[RECORD_SEGMENTS_MAX]; /* oldest first */
    uint32_t n_segments;
    bool     is_open; /* the last segment is written to */
    uint8_t  pinned[RECORD_PINS_MAX][RECORD_PIN_BYTES];
    size_t   pinned_bytes[RECORD_PINS_MAX];
};

static bool open_folder(record_files *f, const char *folder, error *err)
{
    struct stat about;
    if (mkdir(folder, S_IRWXU) != 0 && errno != EEXIST)
        return error_set(err, ERR_IO, "--record %s: the folder can't be made: %s", folder, strerror(errno));
    f->folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (f->folder_fd < 0 || fstat(f->folder_fd, &about) != 0)
        return error_set(err, ERR_IO, "--record %s: %s", folder, strerror(errno));
    if (about.st_uid != geteuid() || (about.st_mode & (S_IWGRP | S_IWOTH)))
        return error_set(err, ERR_INVALID,
                         "--record %s: others may write to this folder, and prompts will be in it: give one that is "
                         "this user's alone (chmod 700)",
                         folder);
    return true;
}

static void delete_oldest(record_files *f)
{
    segment *oldest = &f->segments[0];
    unlinkat(f->folder_fd, oldest->name, 0);
    close(oldest->fd);
    f->bytes -= oldest->bytes;
    f->n_segments--;
    memmove(oldest, oldest + 1, f->n_segments * sizeof *oldest);
}

/* "<service>-<16 hex digits>-<digits>.rec" */
static bool is_of_service(const record_files *f, const char *name)
{
    size_t service = strlen(f->service), size = strlen(name);
    return size < NAME_BYTES && size > service + 18 + 4 && memcmp(name, f->service, service) == 0 &&
           name[service] == '-' && strspn(name + service + 1, "0123456789abcdef") == 16 && name[service + 17] == '-' &&
           strspn(name + service + 18, "0123456789") == size - service - 18 - 4 && strcmp(name + size - 4, ".rec") == 0;
}

static void insert_by_age(record_files *f, const segment *found)
{
    if (f->n_segments == RECORD_SEGMENTS_MAX)
        delete_oldest(f);
    uint32_t at = f->n_segments++;
    for (; at > 0 && f->segments[at - 1].modified_ns > found->modified_ns; at--)
        f->segments[at] = f->segments[at - 1];
    f->segments[at] = *found;
    f->bytes += found->bytes;
}

/* Takes in a file that no living process holds. */
static void adopt(record_files *f, const char *name)
{
    struct stat about;
    segment     found = {.fd = openat(f->folder_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)};
    if (found.fd < 0)
        return;
    if (flock(found.fd, LOCK_EX | LOCK_NB) != 0 || fstat(found.fd, &about) != 0 || !S_ISREG(about.st_mode)) {
        close(found.fd);
        return;
    }
    found.bytes       = (uint64_t)about.st_size;
    found.modified_ns = (int64_t)about.st_mtim.tv_sec * NS_PER_S + about.st_mtim.tv_nsec;
    memcpy(found.name, name, strlen(name) + 1); /* is_of_service bounds it */
    insert_by_age(f, &found);
}

static bool adopt_all(record_files *f, const char *folder, error *err)
{
    int  fd     = dup(f->folder_fd);
    DIR *stream = fd >= 0 ? fdopendir(fd) : NULL;
    if (!stream) {
        if (fd >= 0)
            close(fd);
        return error_set(err, ERR_IO, "--record %s: %s", folder, strerror(errno));
    }
    for (const struct dirent *entry; (entry = readdir(stream));)
        if (is_of_service(f, entry->d_name))
            adopt(f, entry->d_name);
    closedir(stream);
    return true;
}

record_files *record_files_new(const char *folder, const char *service, uint64_t incarnation, uint64_t bytes_max,
                               error *err)
{
    record_files *f = calloc(1, sizeof *f);
    if (!f) {
        error_set(err, ERR_NO_MEMORY, "no memory for the flight recorder");
        return NULL;
    }
    uint64_t a_part  = bytes_max / SEGMENTS_WANTED;
    f->folder_fd     = -1;
    f->incarnation   = incarnation;
    f->bytes_max     = bytes_max;
    f->segment_bytes = a_part < RECORD_SEGMENT_BYTES_MAX ? a_part : RECORD_SEGMENT_BYTES_MAX;
    snprintf(f->service, sizeof f->service, "%s", service);
    if (!open_folder(f, folder, err) || !adopt_all(f, folder, err))
        record_files_free(&f);
    return f;
}

void record_files_free(record_files **files)
{
    record_files *f = *files;
    if (!f)
        return;
    for (uint32_t i = 0; i < f->n_segments; i++)
        close(f->segments[i].fd);
    if (f->folder_fd >= 0)
        close(f->folder_fd);
    free(f);
    *files = NULL;
}

uint64_t record_files_bytes(const record_files *f)
{
    return f->bytes;
}

void record_files_pin(record_files *f, uint32_t pin, const uint8_t *sealed, size_t bytes)
{
    if (bytes > RECORD_PIN_BYTES)
        return;
    memcpy(f->pinned[pin], sealed, bytes);
    f->pinned_bytes[pin] = bytes;
}

/* All or nothing: what a full disk took of it is cut off again. */
static bool write_at_end(record_files *f, const uint8_t *data, size_t bytes, error *err)
{
    segment *current = &f->segments[f->n_segments - 1];
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pwrite(current->fd, data + done, bytes - done, (off_t)(current->bytes + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            error_set(err, ERR_IO, "%s: %s", current->name, n < 0 ? strerror(errno) : "nothing was written");
            if (ftruncate(current->fd, (off_t)current->bytes) != 0)
                f->is_open = false; /* its tail is torn; the next records go elsewhere */
            return false;
        }
        done += (size_t)n;
    }
    current->bytes += bytes;
    f->bytes += bytes;
    return true;
}

static bool write_head(record_files *f, error *err)
{
    uint8_t          bytes[RECORDING_HEADER_BYTES];
    recording_header head = {
        .incarnation = f->incarnation, .segment = f->n_begun - 1, .unix_ms = clock_unix_ms(clock_system())};
    memcpy(head.service, f->service, sizeof head.service);
    recording_write_header(&head, bytes);
    bool ok = write_at_end(f, bytes, sizeof bytes, err);
    for (uint32_t i = 0; ok && i < RECORD_PINS_MAX; i++)
        ok = f->pinned_bytes[i] == 0 || write_at_end(f, f->pinned[i], f->pinned_bytes[i], err);
    return ok;
}

static bool begin_segment(record_files *f, error *err)
{
    segment *next = &f->segments[f->n_segments];
    f->is_open    = false;
    *next         = (segment){0};
    snprintf(next->name, sizeof next->name, "%s-%016llx-%06llu.rec", f->service, (unsigned long long)f->incarnation,
             (unsigned long long)f->n_begun++);
    next->fd = openat(f->folder_fd, next->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (next->fd < 0)
        return error_set(err, ERR_IO, "%s: %s", next->name, strerror(errno));
    flock(next->fd, LOCK_EX | LOCK_NB);
    f->n_segments++;
    if (!write_head(f, err)) { /* a file without its head would be none */
        unlinkat(f->folder_fd, next->name, 0);
        close(next->fd);
        f->bytes -= next->bytes;
        f->n_segments--;
        return false;
    }
    return f->is_open = true;
}

bool record_files_append(record_files *f, const uint8_t *records, size_t bytes, error *err)
{
    enum { HEAD_BYTES_MAX = RECORDING_HEADER_BYTES + RECORD_PINS_MAX * RECORD_PIN_BYTES };
    if (bytes + HEAD_BYTES_MAX > f->bytes_max)
        return error_set(err, ERR_TOO_LARGE, "%zu bytes of records at once; --record-bytes allows %llu", bytes,
                         (unsigned long long)f->bytes_max);
    bool full = f->is_open && f->segments[f->n_segments - 1].bytes + bytes > f->segment_bytes;
    if (full)
        f->is_open = false;
    uint32_t n_kept = f->is_open;
    while (f->n_segments > n_kept &&
           (f->bytes + bytes + HEAD_BYTES_MAX > f->bytes_max || f->n_segments == RECORD_SEGMENTS_MAX))
        delete_oldest(f);
    return (f->is_open || begin_segment(f, err)) && write_at_end(f, records, bytes, err);
}
