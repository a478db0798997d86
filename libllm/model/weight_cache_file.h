/* A model's file of packed weights: opened and mapped, or made by one process while others wait for it.
 *
 * Who makes it writes NAME.tmp, which it holds locked, and renames it when all of it is on the disk. Another process
 * that finds that file waits for the lock; if its holder died, it starts anew. Nothing here fails a load: what goes
 * wrong is logged, and weights are packed in memory. */
#ifndef TROUPE_MODEL_WEIGHT_CACHE_FILE_H
#define TROUPE_MODEL_WEIGHT_CACHE_FILE_H

#include "model/weight_cache_place.h"
#include "model/weight_cache_writer.h"

typedef struct {
    weight_cache_key   key;
    weight_cache_place places[WEIGHT_CACHE_PLACES_MAX];
    uint32_t           n_places;
    bool               is_wanted; /* named by a flag: that it can't be had is a warning */
    mapped_file        map;
    weight_cache       cache; /* of what is mapped */
    /* while one is made */
    uint32_t             place;
    int                  folder, file;
    weight_cache_writer *writer;
} weight_cache_file;

/* `choice` as in weight_cache_places. False, with a warning, when there is no place. */
bool weight_cache_file_init(weight_cache_file *f, const char *choice, const char *model_path,
                            const weight_cache_key *key);

/* Maps a good file from the first place that has one. */
bool weight_cache_file_map(weight_cache_file *f);
void weight_cache_file_unmap(weight_cache_file *f);

typedef enum {
    WEIGHT_CACHE_BEGUN,     /* f->writer takes the weights; weight_cache_file_end must follow */
    WEIGHT_CACHE_BY_OTHERS, /* another process made one meanwhile: map it */
    WEIGHT_CACHE_NOWHERE,
} weight_cache_begin;

weight_cache_begin weight_cache_file_begin(weight_cache_file *f, uint32_t n_weights_max);

/* Finishes the file, or drops it: when `complete` is false, or when it can't be finished. True when it is there. */
bool weight_cache_file_end(weight_cache_file *f, bool complete);

#endif
