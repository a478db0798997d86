/* See weight_cache_writer.h. */
#include "model/weight_cache_writer.h"

#include "model/fingerprint.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Pieces of several huge pages, at multiples of their size: the page cache then holds the file in huge pages, where the
 * file system has such, and who maps it gets these. */
enum { PIECE_BYTES = 4 << 20 };

struct weight_cache_writer {
    int                 file;
    uint32_t            n_weights, n_weights_max;
    uint64_t            offset; /* where the next byte goes; a multiple of PIECE_BYTES and n_piece */
    size_t              n_piece;
    uint8_t            *piece;
    weight_cache_entry *entries;
};

weight_cache_writer *weight_cache_writer_new(int file, uint32_t n_weights_max, error *err)
{
    weight_cache_writer *w = calloc(1, sizeof *w);
    if (w) {
        *w = (weight_cache_writer){.file          = file,
                                   .n_weights_max = n_weights_max,
                                   .piece         = malloc(PIECE_BYTES),
                                   .entries       = calloc(n_weights_max, sizeof *w->entries)};
    }
    if (!w || !w->piece || !w->entries) {
        weight_cache_writer_free(&w);
        error_set(err, ERR_NO_MEMORY, "no memory to write packed weights");
    }
    return w;
}

void weight_cache_writer_free(weight_cache_writer **writer)
{
    weight_cache_writer *w = *writer;
    if (!w)
        return;
    free(w->piece);
    free(w->entries);
    free(w);
    *writer = NULL;
}

static bool write_at(const weight_cache_writer *w, uint64_t offset, const void *data, size_t bytes, error *err)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pwrite(w->file, (const uint8_t *)data + done, bytes - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_set(err, ERR_IO, "writing: %s", strerror(n < 0 ? errno : ENOSPC));
        done += (size_t)n;
    }
    return true;
}

static bool write_piece(weight_cache_writer *w, error *err)
{
    bool ok    = write_at(w, w->offset - w->n_piece, w->piece, w->n_piece, err);
    w->n_piece = 0;
    return ok;
}

/* `data` NULL: zeros. */
static bool append(weight_cache_writer *w, const uint8_t *data, size_t bytes, error *err)
{
    while (bytes > 0) {
        size_t room = PIECE_BYTES - w->n_piece, n = bytes < room ? bytes : room;
        if (data)
            memcpy(w->piece + w->n_piece, data, n);
        else
            memset(w->piece + w->n_piece, 0, n);
        w->n_piece += n;
        w->offset += n;
        bytes -= n;
        data = data ? data + n : NULL;
        if (w->n_piece == PIECE_BYTES && !write_piece(w, err))
            return false;
    }
    return true;
}

bool weight_cache_append(weight_cache_writer *w, const kern_matrix *shape, const void *packed, size_t bytes, error *err)
{
    if (w->n_weights == w->n_weights_max)
        return error_set(err, ERR_TOO_LARGE, "the model has more than %u weights", w->n_weights_max);
    size_t table = w->n_weights == 0 ? sizeof(weight_cache_header) + w->n_weights_max * sizeof *w->entries : 0;
    size_t gap = table + (KERN_WEIGHT_ALIGNMENT - (w->offset + table) % KERN_WEIGHT_ALIGNMENT) % KERN_WEIGHT_ALIGNMENT;
    if (!append(w, NULL, gap, err))
        return false;
    w->entries[w->n_weights++] = (weight_cache_entry){.dtype  = shape->dtype,
                                                      .n_rows = shape->n_rows,
                                                      .n_cols = shape->n_cols,
                                                      .offset = w->offset,
                                                      .bytes  = bytes,
                                                      .check  = fingerprint_of_data(packed, bytes)};
    return append(w, packed, bytes, err);
}

bool weight_cache_finish(weight_cache_writer *w, const weight_cache_key *key, error *err)
{
    assert(w->n_weights > 0);
    weight_cache_header header;
    weight_cache_fill_header(&header, key, w->entries, w->n_weights);
    if (!write_piece(w, err) || !write_at(w, sizeof header, w->entries, w->n_weights * sizeof *w->entries, err) ||
        !write_at(w, 0, &header, sizeof header, err))
        return false;
    return fsync(w->file) == 0 || error_set(err, ERR_IO, "writing: %s", strerror(errno));
}
