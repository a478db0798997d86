/* Key files to keys, and a new pair to files. */
#include "bus/keys.h"
#include "bus/bus.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

enum { LINE_BYTES = 512 };

static bool key_is_valid(const char *text)
{
    uint8_t raw[32];
    return strlen(text) == BUS_KEY_BYTES - 1 && zmq_z85_decode(raw, text) != NULL;
}

/* The next line; 0 at the end, -1 for one that is longer or has a NUL byte: its tail would be read as a line of its
 * own. */
static int read_line(FILE *file, char line[LINE_BYTES])
{
    if (!fgets(line, LINE_BYTES, file))
        return 0;
    return strchr(line, '\n') || feof(file) ? 1 : -1;
}

static bool refuse_line(const char *path, uint32_t n_line, error *err)
{
    return error_set(err, ERR_INVALID, "%s:%u: a line of text of at most %d bytes was expected", path, n_line,
                     LINE_BYTES - 2);
}

/* Cuts a comment that begins the line or follows a blank (Z85 has '#' too), and blanks at both ends. */
static char *bare_line(char *line)
{
    while (isspace((unsigned char)*line))
        line++;
    if (*line == '#')
        *line = '\0';
    size_t n = strlen(line);
    while (n > 0 && isspace((unsigned char)line[n - 1]))
        line[--n] = '\0';
    return line;
}

/* Finds `name = "key"`. 1: found; 0: not this line; -1: this line, but no key. */
static int key_of_line(const char *line, const char *name, char key[BUS_KEY_BYTES])
{
    size_t n = strlen(name);
    char   text[LINE_BYTES];
    int    used = 0;
    if (strncmp(line, name, n) != 0)
        return 0;
    if (sscanf(line + n, " = \"%511[^\"]\"%n", text, &used) != 1 || used == 0 || line[n + (size_t)used] != '\0' ||
        !key_is_valid(text))
        return -1;
    memcpy(key, text, BUS_KEY_BYTES);
    explicit_bzero(text, sizeof text);
    return 1;
}

static bool read_pair(const char *path, char *public_key, char *secret_key, error *err)
{
    char     line[LINE_BYTES];
    uint32_t n_lines = 0;
    int      got     = 0;
    bool     ok      = true;
    FILE    *file    = fopen(path, "re");
    if (!file)
        return error_set(err, ERR_IO, "%s: the key file cannot be read: %s", path, strerror(errno));
    struct stat status;
    if (secret_key && fstat(fileno(file), &status) == 0 && (status.st_mode & (S_IRWXO | S_IWGRP)) != 0)
        ok = error_set(err, ERR_INVALID, "%s: others may read or write this secret key; chmod 600 it", path);
    while (ok && (got = read_line(file, line)) > 0) {
        n_lines++;
        char *text         = bare_line(line);
        int   found_public = key_of_line(text, "public-key", public_key);
        int   found_secret = secret_key ? key_of_line(text, "secret-key", secret_key) : 0;
        if (found_public < 0 || found_secret < 0)
            ok = error_set(err, ERR_INVALID, "%s:%u: a key of 40 Z85 characters in double quotes was expected", path,
                           n_lines);
    }
    if (ok && got < 0)
        ok = refuse_line(path, n_lines + 1, err);
    explicit_bzero(line, sizeof line);
    fclose(file);
    if (ok && (public_key[0] == '\0' || (secret_key && secret_key[0] == '\0')))
        ok = error_set(err, ERR_INVALID, "%s: no line `%s = \"...\"`", path,
                       public_key[0] ? "secret-key" : "public-key");
    return ok;
}

static role role_from_name(const char *name)
{
    for (role r = ROLE_GATEWAY; r <= ROLE_CLIENT; r++)
        if (strcmp(role_name(r), name) == 0)
            return r;
    return ROLE_UNKNOWN;
}

static bool read_peer(bus_keys *keys, const char *path, uint32_t n_line, const char *text, error *err)
{
    char key[64] = "", name[64] = "", more[2] = "";
    if (sscanf(text, "%63s %63s %1s", key, name, more) != 2 || !key_is_valid(key))
        return error_set(err, ERR_INVALID, "%s:%u: a public key of 40 Z85 characters and a role were expected", path,
                         n_line);
    if (role_from_name(name) == ROLE_UNKNOWN)
        return error_set(err, ERR_INVALID,
                         "%s:%u: \"%s\" is no role (gateway, tokenizer, scheduler, executor, drafter, "
                         "postprocessor, client)",
                         path, n_line, name);
    if (bus_keys_role(keys, span_of(key)) != ROLE_UNKNOWN)
        return error_set(err, ERR_INVALID, "%s:%u: this key was given a role before; a key has one", path, n_line);
    if (keys->n_peers == BUS_PEER_KEYS_MAX)
        return error_set(err, ERR_TOO_LARGE, "%s:%u: more than %d keys", path, n_line, BUS_PEER_KEYS_MAX);
    bus_peer_key *peer = &keys->peers[keys->n_peers++];
    memcpy(peer->key, key, BUS_KEY_BYTES);
    peer->role = role_from_name(name);
    return true;
}

static bool read_peers(bus_keys *keys, const char *path, error *err)
{
    char     line[LINE_BYTES];
    uint32_t n_lines = 0;
    int      got     = 0;
    bool     ok      = true;
    FILE    *file    = fopen(path, "re");
    if (!file)
        return error_set(err, ERR_IO, "%s: the file of peers cannot be read: %s", path, strerror(errno));
    keys->peers = calloc(BUS_PEER_KEYS_MAX, sizeof *keys->peers);
    if (!keys->peers)
        ok = error_set(err, ERR_NO_MEMORY, "no memory for the keys of peers");
    while (ok && (got = read_line(file, line)) > 0) {
        n_lines++;
        char *text = bare_line(line);
        if (*text)
            ok = read_peer(keys, path, n_lines, text, err);
    }
    if (ok && got < 0)
        ok = refuse_line(path, n_lines + 1, err);
    fclose(file);
    return ok;
}

bool bus_keys_read(bus_keys *keys, const char *secret_key_file, const char *server_key_file, const char *peers_file,
                   error *err)
{
    memset(keys, 0, sizeof *keys);
    if ((!secret_key_file || read_pair(secret_key_file, keys->public_key, keys->secret_key, err)) &&
        (!server_key_file || read_pair(server_key_file, keys->server_key, NULL, err)) &&
        (!peers_file || read_peers(keys, peers_file, err)))
        return true;
    bus_keys_clear(keys);
    return false;
}

void bus_keys_clear(bus_keys *keys)
{
    free(keys->peers);
    explicit_bzero(keys, sizeof *keys);
}

role bus_keys_role(const bus_keys *keys, span public_key)
{
    for (uint32_t i = 0; i < keys->n_peers; i++)
        if (span_is(public_key, keys->peers[i].key))
            return keys->peers[i].role;
    return ROLE_UNKNOWN;
}

/* Creates the file; an existing one is never overwritten, for it may be the only copy of a key. */
static bool write_new_file(const char *path, mode_t mode, const char *text, error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0)
        return error_set(err, ERR_IO, "%s: cannot be created: %s", path, strerror(errno));
    size_t  n       = strlen(text);
    ssize_t written = write(fd, text, n);
    if (close(fd) != 0 || written != (ssize_t)n) {
        unlink(path);
        return error_set(err, ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
    }
    return true;
}

bool bus_write_keypair(const char *path, error *err)
{
    char public_key[BUS_KEY_BYTES], secret_key[BUS_KEY_BYTES], public_path[4096], text[LINE_BYTES];
    if ((size_t)snprintf(public_path, sizeof public_path, "%s.pub", path) >= sizeof public_path)
        return error_set(err, ERR_TOO_LARGE, "the path of the key file is over %zu bytes", sizeof public_path - 5);
    if (zmq_curve_keypair(public_key, secret_key) != 0)
        return error_set(err, ERR_UNSUPPORTED, "ZeroMQ was built without CURVE: %s", zmq_strerror(zmq_errno()));
    snprintf(text, sizeof text, "# CURVE key pair: keep this file secret\npublic-key = \"%s\"\nsecret-key = \"%s\"\n",
             public_key, secret_key);
    bool ok = write_new_file(path, 0600, text, err);
    explicit_bzero(secret_key, sizeof secret_key);
    explicit_bzero(text, sizeof text);
    snprintf(text, sizeof text,
             "# CURVE public key: give it to those who should trust this process\npublic-key = \"%s\"\n", public_key);
    return ok && write_new_file(public_path, 0644, text, err);
}
