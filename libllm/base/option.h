/* Command-line options as a table: one row gives the flag, its environment variable, its default, its range and its
 * help.
 *
 *   static const option_row rows[] = {
 *       OPTION_STRING(serve_options, model, "--model", "FILE", NULL, "GGUF file or a folder with safetensors"),
 *       OPTION_UINT(serve_options, port, "--port", "N", 8080, 0, 65535, "TCP port; 0 takes a free one"),
 *       ...
 *   };
 *
 * Every flag is also an environment variable: --max-model-len is TROUPE_MAX_MODEL_LEN. The command line wins over the
 * environment, that over the default. `--flag value` and `--flag=value` both work. A number out of range, an unknown
 * flag, a missing value or a value that is not a number is an error that names the flag, the value and what was
 * expected, and suggests the nearest known flag. */
#ifndef TROUPE_BASE_OPTION_H
#define TROUPE_BASE_OPTION_H

#include "base/error.h"
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum {
    OPTION_KIND_STRING, /* const char * field; borrowed from argv, the environment or the default */
    OPTION_KIND_UINT,   /* uint64_t field; suffixes K M G (1024 powers) are accepted when `suffix` is set */
    OPTION_KIND_DOUBLE, /* double field */
    OPTION_KIND_BOOL,   /* bool field: --flag, --no-flag, --flag=true|false */
    OPTION_KIND_CHOICE, /* uint32_t field: index into the '|' separated list in `value_name` */
} option_kind;

typedef struct {
    const char *flag;       /* "--max-model-len" */
    const char *value_name; /* "N", "FILE", "continuous|dynamic|static"; NULL for a bool */
    const char *help;       /* one or two sentences */
    const char *text_default;
    option_kind kind;
    size_t      offset; /* of the field in the options struct */
    double      number_default, number_min, number_max;
    bool        suffix;
} option_row;

#define OPTION_STRING(type, field, flag_, value_, default_, help_)                                                     \
    {                                                                                                                  \
        .flag = flag_, .value_name = value_, .help = help_, .text_default = default_, .kind = OPTION_KIND_STRING,      \
        .offset = offsetof(type, field)                                                                                \
    }
#define OPTION_UINT(type, field, flag_, value_, default_, min_, max_, help_)                                           \
    {                                                                                                                  \
        .flag = flag_, .value_name = value_, .help = help_, .kind = OPTION_KIND_UINT, .offset = offsetof(type, field), \
        .number_default = default_, .number_min = min_, .number_max = max_                                             \
    }
#define OPTION_BYTES(type, field, flag_, default_, min_, max_, help_)                                                  \
    {                                                                                                                  \
        .flag = flag_, .value_name = "BYTES", .help = help_, .kind = OPTION_KIND_UINT, .suffix = true,                 \
        .offset = offsetof(type, field), .number_default = default_, .number_min = min_, .number_max = max_            \
    }
#define OPTION_DOUBLE(type, field, flag_, value_, default_, min_, max_, help_)                                         \
    {                                                                                                                  \
        .flag = flag_, .value_name = value_, .help = help_, .kind = OPTION_KIND_DOUBLE,                                \
        .offset = offsetof(type, field), .number_default = default_, .number_min = min_, .number_max = max_            \
    }
#define OPTION_BOOL(type, field, flag_, default_, help_)                                                               \
    {                                                                                                                  \
        .flag = flag_, .help = help_, .kind = OPTION_KIND_BOOL, .offset = offsetof(type, field),                       \
        .number_default = default_                                                                                     \
    }
#define OPTION_CHOICE(type, field, flag_, choices_, default_index_, help_)                                             \
    {                                                                                                                  \
        .flag = flag_, .value_name = choices_, .help = help_, .kind = OPTION_KIND_CHOICE,                              \
        .offset = offsetof(type, field), .number_default = default_index_                                              \
    }

/* A group of rows that write into one struct; several groups may share a command line (bus options, service options).
 */
typedef struct {
    const char       *title; /* heading in the help */
    const option_row *rows;
    size_t            n_rows;
    void             *options; /* the struct that the offsets refer to */
} option_group;

/* A flag that stands in several groups is set in each of them. Fills every group's struct with defaults, then the
 * environment, then argv[0..argc) (argv[0] is the first argument, not the program). Stops at the first argument that
 * does not begin with "--" (or after "--") when n_positional is not NULL and stores how many arguments remain there;
 * with n_positional NULL such an argument is an error. A flag given twice keeps the last value. An environment variable
 * that is empty counts as unset; one that no row knows is left alone, for it may be another service's. A value that
 * begins with "--" must be given as --flag=value. Strings are borrowed. */
bool option_parse(const option_group *groups, size_t n_groups, int argc, char **argv, int *n_positional,
                  error *err) MUST_CHECK;

/* True when --help or -h is among the arguments (before any "--"); option_parse itself knows no such flag. */
bool option_wants_help(int argc, char **argv);

/* Prints the groups' flags with their defaults, environment names and help, wrapped at 100 columns. */
void option_help(FILE *out, const option_group *groups, size_t n_groups);

#endif
