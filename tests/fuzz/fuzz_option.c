// links: service_troupe
/* What a person writes on the command line and into the environment, for every service: lines of the input, those that
 * begin with TROUPE_ are the environment. What is taken is within its row's limits; its endpoints are cut, and its
 * addresses read. */
#include "bus/process.h"
#include "store/redis_address.h"
#include "troupe/endpoints.h"
#include "troupe/services.h"

#include <stdlib.h>

enum { LINES_MAX = 32, TEXT_BYTES_MAX = 8 << 10, SLOTS = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static all_options     all;
static process_options process_given;
static bus            *no_keys;

static size_t collect_groups(option_group *groups)
{
    size_t n = 0;
    for (int i = 0; i < N_SERVICES; i++)
        groups[n++] =
            (option_group){services[i].name, services[i].rows, *services[i].n_rows, (char *)&all + services[i].offset};
    groups[n++] = (option_group){"Bus", endpoint_option_rows, n_endpoint_option_rows, &process_given};
    groups[n++] = (option_group){"Keys", key_option_rows, n_key_option_rows, &process_given};
    groups[n++] = (option_group){"Process", process_option_rows, n_process_option_rows, &process_given};
    return n;
}

static bool is_within_limits(const option_row *row, const void *options)
{
    const char *field     = (const char *)options + row->offset;
    uint32_t    n_choices = 1;
    switch (row->kind) {
    case OPTION_KIND_STRING:
        return true;
    case OPTION_KIND_UINT:
        return (double)*(const uint64_t *)field >= row->number_min &&
               (double)*(const uint64_t *)field <= row->number_max;
    case OPTION_KIND_DOUBLE:
        return *(const double *)field >= row->number_min && *(const double *)field <= row->number_max;
    case OPTION_KIND_BOOL:
        return *(const uint8_t *)field <= 1;
    case OPTION_KIND_CHOICE:
        for (const char *c = row->value_name; *c; c++)
            n_choices += *c == '|';
        return *(const uint32_t *)field < n_choices;
    }
    return false;
}

static void read_address(const char *text)
{
    redis_address  address;
    transport_kind kind;
    error          err = {0};
    if (redis_address_parse(text, &address, &err)) {
        if (!address.host[0] || !memchr(address.host, '\0', sizeof address.host) ||
            !memchr(address.user, '\0', sizeof address.user) || address.database > 65535 ||
            (!address.is_unix && address.port == 0))
            __builtin_trap();
    } else if (!err.text[0]) {
        __builtin_trap();
    }
    err.text[0] = '\0';
    if (!transport_kind_of(no_keys, text, &kind, &err) && !err.text[0])
        __builtin_trap();
}

static void cut(const char *text)
{
    static char copy[ENDPOINTS_BYTES];
    const char *slots[SLOTS] = {"first"};
    error       err          = {0};
    if (!cut_endpoints(copy, text, slots, SLOTS, "--bus-bind", &err)) {
        if (!err.text[0])
            __builtin_trap();
        return;
    }
    if (!slots[1])
        __builtin_trap();
    for (uint32_t i = 1; i < SLOTS && slots[i]; i++)
        if (!*slots[i] || strchr(slots[i], ',') || !strstr(text, slots[i]))
            __builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char  text[TEXT_BYTES_MAX];
    option_group groups[N_SERVICES + 3];
    char        *arguments[LINES_MAX + 1], *rest = text;
    size_t       n_groups = collect_groups(groups);
    int          n        = 0, n_positional;
    error        err      = {0};
    if (size >= sizeof text || (!no_keys && !(no_keys = bus_new(NULL, NULL))))
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    clearenv();
    while (rest && n < LINES_MAX) {
        char *line   = strsep(&rest, "\n");
        char *equals = strchr(line, '=');
        if (strncmp(line, "TROUPE_", 7) == 0 && equals) {
            *equals = '\0';
            setenv(line, equals + 1, 1);
        } else {
            arguments[n++] = line;
        }
    }
    arguments[n] = NULL;
    for (int i = 0; i < n; i++) {
        read_address(arguments[i]);
        cut(arguments[i]);
    }
    (void)option_wants_help(n, arguments);
    if (!option_parse(groups, n_groups, n, arguments, n % 2 ? &n_positional : NULL, &err)) {
        if (!err.text[0])
            __builtin_trap();
        return 0;
    }
    for (size_t g = 0; g < n_groups; g++)
        for (size_t r = 0; r < groups[g].n_rows; r++)
            if (!is_within_limits(&groups[g].rows[r], groups[g].options))
                __builtin_trap();
    read_address(all.scheduler.store_url);
    return 0;
}
