/* Where a model's packed weights may be kept, and who may have written them.
 *
 * Beside the model: FILE.gguf.quads.packed, or weights.quads.packed in a folder of safetensors; a quantisation stands
 * before the layout's name. Elsewhere a hash of the model's full path is part of the name.
 *
 * A file is read only if it belongs to this user, to root or to the model's owner, and nobody else may write it; a
 * folder is written to only under the same terms, or when it is sticky as /tmp is. No symbolic link is followed at the
 * file. */
#ifndef TROUPE_MODEL_WEIGHT_CACHE_PLACE_H
#define TROUPE_MODEL_WEIGHT_CACHE_PLACE_H

#include "model/weight_cache.h"

#include <limits.h>

#define WEIGHT_CACHE_OFF "off"
#define WEIGHT_CACHE_AUTO "auto"

typedef struct {
    char     folder[PATH_MAX];
    char     name[NAME_MAX + 1];
    bool     may_make_folder;
    uint32_t model_owner, model_mode; /* of the model: a cache is as readable as that */
} weight_cache_place;

enum { WEIGHT_CACHE_PLACES_MAX = 2 };

/* The places in the order in which they are tried. `choice` is a folder, or "auto": beside the model, then
 * $XDG_CACHE_HOME/troupe or ~/.cache/troupe. 0 with an error when the model's path can't be resolved. */
uint32_t weight_cache_places(const char *choice, const char *model_path, const weight_cache_key *key,
                             weight_cache_place places[WEIGHT_CACHE_PLACES_MAX], error *err);

/* A descriptor of the folder, to be closed; -1 with a sentence. `writes`: makes it when it may, and refuses one that
 * others may write to. */
int weight_cache_open_folder(const weight_cache_place *place, bool writes, error *err);

/* A descriptor of the file, to be closed; -1 with ERR_NOT_FOUND when it isn't there, else with a sentence. */
int weight_cache_open_file(const weight_cache_place *place, int folder, error *err);

#endif
