/* Options: defaults, then the environment, then the command line, all through one function that sets a row from text.
 */
#include "base/option.h"

#include "base/json_out.h"
#include "base/span.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

enum { HELP_COLUMNS = 100, HELP_INDENT = 34, FLAG_BYTES = 64 };

/* A row and the struct that it writes into. */
typedef struct {
    const option_row *row;
    void             *options;
} option_target;

static void *field_of(option_target t)
{
    return (char *)t.options + t.row->offset;
}

/* 2^64 and more become UINT64_MAX: a double can't hold UINT64_MAX itself. */
static uint64_t u64_of(double value)
{
    return value >= 0x1p64 ? UINT64_MAX : value <= 0 ? 0 : (uint64_t)value;
}

/* "--max-model-len" is TROUPE_MAX_MODEL_LEN. */
static void environment_name(const option_row *row, char name[FLAG_BYTES + 8])
{
    assert(strlen(row->flag) > 2 && strlen(row->flag) < FLAG_BYTES);
    snprintf(name, FLAG_BYTES + 8, "TROUPE_%s", row->flag + 2);
    for (char *c = name + 7; *c; c++)
        *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
}

/* ------------------------------------------------------------------------------------------ one row from text */

static unsigned suffix_shift(char suffix)
{
    switch (suffix) {
    case 'K':
    case 'k':
        return 10;
    case 'M':
        return 20;
    case 'G':
        return 30;
    default:
        return 0;
    }
}

/* `value` in the row's unit, as help and errors show it: 64K rather than 65536 where the row takes suffixes. */
static void show_number(const option_row *row, double value, char text[JSON_NUMBER_BYTES])
{
    if (row->kind == OPTION_KIND_DOUBLE) {
        json_number(value, text);
        return;
    }
    uint64_t number   = u64_of(value);
    int      exponent = 0;
    while (row->suffix && exponent < 3 && number > 0 && number % 1024 == 0) {
        number /= 1024;
        exponent++;
    }
    snprintf(text, JSON_NUMBER_BYTES, "%" PRIu64 "%.*s", number, exponent > 0, &"KMG"[exponent > 0 ? exponent - 1 : 0]);
}

static bool refuse_number(const option_row *row, const char *name, const char *text, error *err)
{
    char min[JSON_NUMBER_BYTES], max[JSON_NUMBER_BYTES];
    show_number(row, row->number_min, min);
    show_number(row, row->number_max, max);
    return error_set(err, ERR_INVALID, "%s: \"%s\" is not a%s number from %s to %s%s", name, text,
                     row->kind == OPTION_KIND_UINT ? " whole" : "", min, max,
                     row->suffix ? " (suffixes K, M and G are powers of 1024)" : "");
}

static bool set_uint(option_target t, const char *name, const char *text, error *err)
{
    const option_row *row   = t.row;
    uint64_t          value = 0;
    const char       *c     = text;
    bool              fits  = isdigit((unsigned char)*c);
    for (; fits && isdigit((unsigned char)*c); c++)
        fits = !__builtin_mul_overflow(value, UINT64_C(10), &value) &&
               !__builtin_add_overflow(value, (uint64_t)(*c - '0'), &value);
    if (fits && row->suffix && suffix_shift(*c)) {
        fits = !__builtin_mul_overflow(value, UINT64_C(1) << suffix_shift(*c), &value);
        c++;
    }
    if (!fits || *c || value < u64_of(row->number_min) || value > u64_of(row->number_max))
        return refuse_number(row, name, text, err);
    *(uint64_t *)field_of(t) = value;
    return true;
}

static bool set_double(option_target t, const char *name, const char *text, error *err)
{
    char  *end;
    double value = strtod(text, &end);
    bool   plain = *text && strspn(text, "+-.0123456789eE") == strlen(text);
    if (!plain || *end || !(value >= t.row->number_min && value <= t.row->number_max))
        return refuse_number(t.row, name, text, err);
    *(double *)field_of(t) = value;
    return true;
}

static bool set_bool(option_target t, const char *name, const char *text, error *err)
{
    bool is_true = strcmp(text, "true") == 0 || strcmp(text, "1") == 0;
    if (!is_true && strcmp(text, "false") != 0 && strcmp(text, "0") != 0)
        return error_set(err, ERR_INVALID, "%s: \"%s\" is neither true nor false", name, text);
    *(bool *)field_of(t) = is_true;
    return true;
}

static bool set_choice(option_target t, const char *name, const char *text, error *err)
{
    uint32_t index = 0;
    for (const char *choice = t.row->value_name; choice; index++) {
        const char *bar = strchr(choice, '|');
        if (span_is((span){choice, bar ? (size_t)(bar - choice) : strlen(choice)}, text)) {
            *(uint32_t *)field_of(t) = index;
            return true;
        }
        choice = bar ? bar + 1 : NULL;
    }
    return error_set(err, ERR_INVALID, "%s: \"%s\" is not one of %s", name, text, t.row->value_name);
}

/* `name` is what the user wrote: the flag or the environment variable. */
static bool set_from_text(option_target t, const char *name, const char *text, error *err)
{
    switch (t.row->kind) {
    case OPTION_KIND_STRING:
        *(const char **)field_of(t) = text;
        return true;
    case OPTION_KIND_UINT:
        return set_uint(t, name, text, err);
    case OPTION_KIND_DOUBLE:
        return set_double(t, name, text, err);
    case OPTION_KIND_BOOL:
        return set_bool(t, name, text, err);
    case OPTION_KIND_CHOICE:
        return set_choice(t, name, text, err);
    }
    assert(false);
    return false;
}

static void set_default(option_target t)
{
    double value = t.row->number_default;
    switch (t.row->kind) {
    case OPTION_KIND_STRING:
        *(const char **)field_of(t) = t.row->text_default;
        break;
    case OPTION_KIND_UINT:
        *(uint64_t *)field_of(t) = u64_of(value);
        break;
    case OPTION_KIND_DOUBLE:
        *(double *)field_of(t) = value;
        break;
    case OPTION_KIND_BOOL:
        *(bool *)field_of(t) = value != 0;
        break;
    case OPTION_KIND_CHOICE:
        *(uint32_t *)field_of(t) = (uint32_t)value;
        break;
    }
}

/* ------------------------------------------------------------------------------------------ finding the flag */

/* Edit distance with swaps of neighbours counted once (optimal string alignment). Both are under FLAG_BYTES. */
static unsigned edit_distance(span a, span b)
{
    unsigned row[3][FLAG_BYTES];
    for (unsigned j = 0; j <= b.size; j++)
        row[0][j] = j;
    for (unsigned i = 1; i <= a.size; i++) {
        unsigned *here = row[i % 3], *above = row[(i - 1) % 3], *two_above = row[(i + 1) % 3];
        here[0] = i;
        for (unsigned j = 1; j <= b.size; j++) {
            unsigned best = above[j - 1] + (a.data[i - 1] != b.data[j - 1]);
            if (above[j] + 1 < best)
                best = above[j] + 1;
            if (here[j - 1] + 1 < best)
                best = here[j - 1] + 1;
            if (i > 1 && j > 1 && a.data[i - 1] == b.data[j - 2] && a.data[i - 2] == b.data[j - 1] &&
                two_above[j - 2] + 1 < best)
                best = two_above[j - 2] + 1;
            here[j] = best;
        }
    }
    return row[a.size % 3][b.size];
}

/* The known flag nearest to `flag`, or NULL when none is near: a third of its letters wrong at most, or its beginning.
 */
static const char *nearest_flag(const option_group *groups, size_t n_groups, span flag)
{
    const char *nearest = NULL;
    unsigned    least   = (unsigned)flag.size / 3 + 1;
    if (flag.size >= FLAG_BYTES)
        return NULL;
    for (size_t g = 0; g < n_groups; g++) {
        for (size_t r = 0; r < groups[g].n_rows; r++) {
            const char *known    = groups[g].rows[r].flag;
            unsigned    distance = edit_distance(flag, span_of(known));
            if (flag.size > 4 && strncmp(known, flag.data, flag.size) == 0)
                distance = 0;
            if (distance < least) {
                least   = distance;
                nearest = known;
            }
        }
    }
    return nearest;
}

static bool find_flag(const option_group *groups, size_t n_groups, span flag, option_target *target)
{
    for (size_t g = 0; g < n_groups; g++) {
        for (size_t r = 0; r < groups[g].n_rows; r++) {
            if (span_is(flag, groups[g].rows[r].flag)) {
                *target = (option_target){&groups[g].rows[r], groups[g].options};
                return true;
            }
        }
    }
    return false;
}

/* As find_flag; also takes --no-flag for a bool and then sets *is_negated. */
static bool find_argument(const option_group *groups, size_t n_groups, span flag, option_target *target,
                          bool *is_negated, error *err)
{
    char positive[FLAG_BYTES];
    *is_negated = false;
    if (find_flag(groups, n_groups, flag, target))
        return true;
    if (flag.size > 5 && flag.size < FLAG_BYTES && memcmp(flag.data, "--no-", 5) == 0) {
        int n = snprintf(positive, sizeof positive, "--%.*s", (int)flag.size - 5, flag.data + 5);
        if (find_flag(groups, n_groups, (span){positive, (size_t)n}, target) && target->row->kind == OPTION_KIND_BOOL) {
            *is_negated = true;
            return true;
        }
    }
    const char *nearest = nearest_flag(groups, n_groups, flag);
    return error_set(err, ERR_INVALID, "%.*s: there is no such option%s%s%s", SPAN_ARG(flag),
                     nearest ? "; did you mean " : "", nearest ? nearest : "", nearest ? "?" : "");
}

/* Sets the flag in every group that has it: services that run in one process share flags such as --max-num-seqs. */
static bool set_everywhere(const option_group *groups, size_t n_groups, const char *flag, const char *text, error *err)
{
    for (size_t g = 0; g < n_groups; g++) {
        option_target target;
        if (find_flag(&groups[g], 1, span_of(flag), &target) && !set_from_text(target, flag, text, err))
            return false;
    }
    return true;
}

/* Sets one option from argv[*at] and, where it takes a value of its own, argv[*at + 1]; moves *at past them. */
static bool take_argument(const option_group *groups, size_t n_groups, int argc, char **argv, int *at, error *err)
{
    const char   *argument = argv[(*at)++];
    const char   *equals   = strchr(argument, '=');
    span          flag     = {argument, equals ? (size_t)(equals - argument) : strlen(argument)};
    option_target target;
    bool          is_negated;
    if (!find_argument(groups, n_groups, flag, &target, &is_negated, err))
        return false;
    if (is_negated && equals)
        return error_set(err, ERR_INVALID, "%.*s takes no value; write %s=true or %s=false", SPAN_ARG(flag),
                         target.row->flag, target.row->flag);
    if (equals)
        return set_everywhere(groups, n_groups, target.row->flag, equals + 1, err);
    if (target.row->kind == OPTION_KIND_BOOL)
        return set_everywhere(groups, n_groups, target.row->flag, is_negated ? "false" : "true", err);
    if (*at >= argc || strncmp(argv[*at], "--", 2) == 0)
        return error_set(err, ERR_INVALID, "%s needs a value: %s %s", target.row->flag, target.row->flag,
                         target.row->value_name);
    return set_everywhere(groups, n_groups, target.row->flag, argv[(*at)++], err);
}

static bool set_from_environment(const option_group *groups, size_t n_groups, error *err)
{
    for (size_t g = 0; g < n_groups; g++) {
        for (size_t r = 0; r < groups[g].n_rows; r++) {
            option_target target = {&groups[g].rows[r], groups[g].options};
            char          name[FLAG_BYTES + 8];
            environment_name(target.row, name);
            set_default(target);
            const char *text = getenv(name);
            if (text && *text && !set_from_text(target, name, text, err))
                return false;
        }
    }
    return true;
}

bool option_parse(const option_group *groups, size_t n_groups, int argc, char **argv, int *n_positional, error *err)
{
    int at = 0;
    if (!set_from_environment(groups, n_groups, err))
        return false;
    while (at < argc) {
        if (strcmp(argv[at], "--") == 0) {
            at++;
            break;
        }
        if (strncmp(argv[at], "--", 2) != 0)
            break;
        if (!take_argument(groups, n_groups, argc, argv, &at, err))
            return false;
    }
    if (n_positional)
        *n_positional = argc - at;
    else if (at < argc)
        return error_set(err, ERR_INVALID, "%s: only options are expected here, and they begin with --", argv[at]);
    return true;
}

bool option_wants_help(int argc, char **argv)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    }
    return false;
}

/* ------------------------------------------------------------------------------------------------------ help */

/* Prints one word, on a new line when it would pass HELP_COLUMNS; the cursor is at *column. */
static void print_word(FILE *out, const char *word, int length, int *column)
{
    if (*column > HELP_INDENT && *column + 1 + length > HELP_COLUMNS) {
        fprintf(out, "\n%*s", HELP_INDENT, "");
        *column = HELP_INDENT;
    } else if (*column > HELP_INDENT) {
        fputc(' ', out);
        ++*column;
    }
    fprintf(out, "%.*s", length, word);
    *column += length;
}

static void print_words(FILE *out, const char *text, int *column)
{
    while (*text) {
        int length = (int)strcspn(text, " ");
        print_word(out, text, length, column);
        text += length;
        text += strspn(text, " ");
    }
}

/* "[default 64K; TROUPE_KV_BYTES]". */
static void describe_default(const option_row *row, char *text, size_t text_bytes)
{
    char name[FLAG_BYTES + 8], number[JSON_NUMBER_BYTES];
    environment_name(row, name);
    span shown = {NULL, 0};
    switch (row->kind) {
    case OPTION_KIND_STRING:
        shown = span_of(row->text_default);
        break;
    case OPTION_KIND_UINT:
    case OPTION_KIND_DOUBLE:
        show_number(row, row->number_default, number);
        shown = span_of(number);
        break;
    case OPTION_KIND_BOOL:
        shown = row->number_default != 0 ? SPAN("true") : SPAN("false");
        break;
    case OPTION_KIND_CHOICE:
        shown.data = row->value_name;
        for (int i = (int)row->number_default; i > 0; i--)
            shown.data = strchr(shown.data, '|') + 1;
        shown.size = strcspn(shown.data, "|");
        break;
    }
    if (shown.size)
        snprintf(text, text_bytes, "[default %.*s; %s]", SPAN_ARG(shown), name);
    else
        snprintf(text, text_bytes, "[%s]", name);
}

void option_help(FILE *out, const option_group *groups, size_t n_groups)
{
    for (size_t g = 0; g < n_groups; g++) {
        fprintf(out, "%s%s:\n", g ? "\n" : "", groups[g].title);
        for (size_t r = 0; r < groups[g].n_rows; r++) {
            const option_row *row = &groups[g].rows[r];
            option_target     shown;
            char              text[512];
            if (find_flag(groups, g, span_of(row->flag), &shown))
                continue; /* an earlier group has it too */
            int column =
                fprintf(out, "  %s%s%s", row->flag, row->value_name ? " " : "", row->value_name ? row->value_name : "");
            if (column + 2 > HELP_INDENT)
                fprintf(out, "\n%*s", HELP_INDENT, "");
            else
                fprintf(out, "%*s", HELP_INDENT - column, "");
            column = HELP_INDENT;
            print_words(out, row->help, &column);
            describe_default(row, text, sizeof text);
            print_word(out, text, (int)strlen(text), &column);
            fputc('\n', out);
        }
    }
}
