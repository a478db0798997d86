/* A file mapped read-only into memory. */
#ifndef TROUPE_MODEL_MAPPED_FILE_H
#define TROUPE_MODEL_MAPPED_FILE_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const uint8_t *data; /* NULL when nothing is mapped */
    size_t         size;
} mapped_file;

/* Refuses what is not a regular file, and an empty one. */
bool mapped_file_open(mapped_file *file, const char *path, error *err) MUST_CHECK;
void mapped_file_close(mapped_file *file);

#endif
