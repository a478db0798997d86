/* See weight_cache_place.h. */
#include "model/weight_cache_place.h"

#include "base/hash.h"
#include "model/quantization.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- names ----------------------------------------------------------------------------------------------------- */

/* The model by its full path. */
typedef struct {
    char        path[PATH_MAX];
    const char *base; /* after the last slash */
    struct stat about;
} resolved;

static bool resolve(resolved *r, const char *model_path, error *err)
{
    if (!realpath(model_path, r->path) || stat(r->path, &r->about) != 0)
        return error_set(err, ERR_IO, "%s: %s", model_path, strerror(errno));
    r->base = strrchr(r->path, '/') + 1;
    return true;
}

static bool fits(int n_written, size_t room)
{
    return n_written >= 0 && (size_t)n_written < room;
}

/* ".int8.quads.packed" */
static void put_ending(char *ending, size_t room, const weight_cache_key *key)
{
    static const char *const kinds[] = {[MODEL_AS_IT_IS] = "", [MODEL_INT8] = ".int8", [MODEL_INT4] = ".int4"};
    snprintf(ending, room, "%s.%.*s.packed", kinds[key->quantization], WEIGHT_CACHE_LAYOUT_BYTES, key->layout);
}

static bool beside(weight_cache_place *place, const resolved *model, const char *ending)
{
    if (S_ISDIR(model->about.st_mode))
        return fits(snprintf(place->folder, sizeof place->folder, "%s", model->path), sizeof place->folder) &&
               fits(snprintf(place->name, sizeof place->name, "weights%s", ending), sizeof place->name);
    int folder_size = model->base - model->path > 1 ? (int)(model->base - model->path - 1) : 1; /* or the root's "/" */
    return fits(snprintf(place->folder, sizeof place->folder, "%.*s", folder_size, model->path),
                sizeof place->folder) &&
           fits(snprintf(place->name, sizeof place->name, "%s%s", model->base, ending), sizeof place->name);
}

static bool elsewhere(weight_cache_place *place, const resolved *model, const char *folder, const char *subfolder,
                      const char *ending)
{
    uint64_t hash = hash_64((hash_key){0}, model->path, strlen(model->path));
    return fits(snprintf(place->folder, sizeof place->folder, "%s%s", folder, subfolder), sizeof place->folder) &&
           fits(snprintf(place->name, sizeof place->name, "%.100s-%016llx%s", model->base, (unsigned long long)hash,
                         ending),
                sizeof place->name);
}

/* The XDG base directory specification: a path that is not absolute is ignored. */
static bool of_user(weight_cache_place *place, const resolved *model, const char *ending)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (xdg && xdg[0] == '/')
        return elsewhere(place, model, xdg, "/troupe", ending);
    return home && home[0] == '/' && elsewhere(place, model, home, "/.cache/troupe", ending);
}

uint32_t weight_cache_places(const char *choice, const char *model_path, const weight_cache_key *key,
                             weight_cache_place places[WEIGHT_CACHE_PLACES_MAX], error *err)
{
    resolved model;
    char     ending[64];
    uint32_t n = 0;
    if (!resolve(&model, model_path, err))
        return 0;
    put_ending(ending, sizeof ending, key);
    weight_cache_place plain = {.model_owner = model.about.st_uid, .model_mode = model.about.st_mode};
    places[0] = places[1] = plain;
    if (strcmp(choice, WEIGHT_CACHE_AUTO) != 0) {
        places[0].may_make_folder = true;
        n += elsewhere(&places[0], &model, choice, "", ending);
    } else {
        n += beside(&places[n], &model, ending);
        places[n].may_make_folder = true;
        n += of_user(&places[n], &model, ending);
    }
    if (n == 0)
        error_set(err, ERR_INVALID, "%s: its path is too long for a cache of packed weights", model_path);
    return n;
}

/* ---- who may write there --------------------------------------------------------------------------------------- */

static bool is_trusted(const weight_cache_place *place, const struct stat *about)
{
    bool by_owner = about->st_uid == geteuid() || about->st_uid == 0 || about->st_uid == place->model_owner;
    return by_owner && (about->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

/* The folder and the one above it, where these are to be made; others must be there. */
static void make_folder(const char *path)
{
    char        above[PATH_MAX];
    const char *slash = strrchr(path, '/');
    if (slash && slash != path) {
        snprintf(above, sizeof above, "%.*s", (int)(slash - path), path);
        mkdir(above, 0700);
    }
    mkdir(path, 0700);
}

int weight_cache_open_folder(const weight_cache_place *place, bool writes, error *err)
{
    if (writes && place->may_make_folder)
        make_folder(place->folder);
    struct stat about;
    int         folder = open(place->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) {
        error_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", place->folder, strerror(errno));
    } else if (fstat(folder, &about) != 0 || (writes && !is_trusted(place, &about) && !(about.st_mode & S_ISVTX))) {
        error_set(err, ERR_UNSUPPORTED, "%s: others may write to this folder, so no cache is kept there",
                  place->folder);
        close(folder);
        folder = -1;
    }
    return folder;
}

int weight_cache_open_file(const weight_cache_place *place, int folder, error *err)
{
    struct stat about;
    /* O_NONBLOCK: a named pipe in the file's place must not hang the program. */
    int file = openat(folder, place->name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) {
        error_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s/%s: %s", place->folder, place->name,
                  strerror(errno));
    } else if (fstat(file, &about) != 0 || !S_ISREG(about.st_mode) || !is_trusted(place, &about)) {
        error_set(err, ERR_UNSUPPORTED,
                  "%s/%s: it is no regular file that only you, root or the model's owner may write", place->folder,
                  place->name);
        close(file);
        file = -1;
    }
    return file;
}
