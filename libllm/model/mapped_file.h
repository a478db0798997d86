/* A file mapped read-only into memory. */
#ifndef TROUPE_MODEL_MAPPED_FILE_H
#define TROUPE_MODEL_MAPPED_FILE_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/* Tells whether files were changed; of several: all bytes, and the newest change. */
typedef struct {
    uint64_t bytes;
    int64_t  modified_ns;
} file_identity;

typedef struct {
    const uint8_t *data; /* NULL when nothing is mapped */
    size_t         size;
    int64_t        modified_ns;
} mapped_file;

/* Refuses what is not a regular file, and an empty one. */
bool mapped_file_open(mapped_file *file, const char *path, error *err) MUST_CHECK;
/* The same for a file that is open, and stays the caller's; `path` stands in messages. */
bool mapped_file_of(mapped_file *file, int fd, const char *path, error *err) MUST_CHECK;
void mapped_file_close(mapped_file *file);

#endif
