// links: service_gateway llm_bus
/* Any bytes as one of the files that say who may ask and who may connect; the first byte picks which. Every key that a
 * file gave is found again, and a refusal names the file. */
#include "bus/keys.h"
#include "services/gateway/api_keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char path[64];

/* A file that only this process has. */
static void write_file(const uint8_t *data, size_t size)
{
    static int fd = -1;
    if (fd < 0) {
        fd = memfd_create("fuzz", MFD_CLOEXEC);
        if (fd < 0 || fchmod(fd, 0600) != 0)
            abort();
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    if (ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
        abort();
}

static void expect_reason(const error *err)
{
    if (!strstr(err->text, path))
        __builtin_trap();
}

static void read_api_keys(span text)
{
    error     err  = {0};
    api_keys *keys = api_keys_load(path, NULL, &err);
    if (!keys)
        expect_reason(&err);
    if (keys && (api_keys_count(keys) == 0 || api_keys_count(keys) > API_KEYS_MAX))
        __builtin_trap();
    span        first  = api_key_of(text); /* the same bytes as the value of an Authorization header */
    const char *tenant = keys && first.size ? api_keys_find(keys, first, NULL) : NULL;
    if (tenant && (!*tenant || strlen(tenant) > TENANT_BYTES))
        __builtin_trap();
    api_keys_free(&keys);
}

/* Lines that may hold a key: those that are neither empty nor a comment. */
static uint32_t n_lines_of(span text)
{
    uint32_t n = 0;
    for (size_t i = 0; i < text.size; i++) {
        while (i < text.size && (text.data[i] == ' ' || (text.data[i] >= '\t' && text.data[i] <= '\r')))
            i++;
        n += i < text.size && text.data[i] != '#';
        while (i < text.size && text.data[i] != '\n')
            i++;
    }
    return n;
}

static void read_bus_keys(char which, span text)
{
    bus_keys keys;
    error    err = {0};
    if (!bus_keys_read(&keys, which == 'p' ? path : NULL, which == 's' ? path : NULL, which == 'r' ? path : NULL,
                       &err)) {
        expect_reason(&err);
        return;
    }
    if ((which == 'p' && (strlen(keys.public_key) != 40 || strlen(keys.secret_key) != 40)) ||
        (which == 's' && strlen(keys.server_key) != 40))
        __builtin_trap();
    if (keys.n_peers > n_lines_of(text))
        __builtin_trap();
    for (uint32_t i = 0; i < keys.n_peers; i++)
        if (bus_keys_role(&keys, span_of(keys.peers[i].key)) != keys.peers[i].role ||
            keys.peers[i].role == ROLE_UNKNOWN)
            __builtin_trap();
    bus_keys_clear(&keys);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    span text = {(const char *)data + 1, size - 1};
    write_file(data + 1, size - 1);
    if (data[0] == 'a')
        read_api_keys(text);
    else
        read_bus_keys((char)data[0], text);
    return 0;
}
