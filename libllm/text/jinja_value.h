/* The values of a Jinja template: Python's, as far as chat templates see them, in one arena.
 *
 * Every string knows where each of its bytes came from: the template's own words are trusted, what came in through the
 * variables is not, and the mark travels through concatenation, slices, filters and formatting. Strings are immutable;
 * a concatenation is a rope until somebody needs its bytes, so a long prompt is copied once, not once for each `+`.
 *
 * A render owns nothing but its arena, so a failure anywhere inside jumps straight to chat_template.c (jinja_fail),
 * which turns it into the library's ordinary error value. No jump leaves the files named jinja_*. */
#ifndef TROUPE_TEXT_JINJA_VALUE_H
#define TROUPE_TEXT_JINJA_VALUE_H

#include "base/arena.h"
#include "base/error.h"
#include "base/span.h"
#include "text/chat_template.h"
#include <setjmp.h>

typedef struct jinja_value    jinja_value;
typedef struct jinja_string   jinja_string;
typedef struct jinja_sequence jinja_sequence;
typedef struct jinja_dict     jinja_dict;
typedef struct jinja_callable jinja_callable;
typedef struct jinja_loop     jinja_loop;
typedef struct jinja_cycler   jinja_cycler;
typedef struct jinja_program  jinja_program; /* jinja_parser.h */
typedef struct jinja_scope    jinja_scope;   /* jinja_eval.h */
typedef struct jinja_builder  jinja_builder;

/* What one parse or one render works with. */
typedef struct {
    arena               *memory;
    error               *err;
    jmp_buf             *failure;
    uint64_t             n_steps;
    uint32_t             depth;
    uint32_t             line; /* of the node at work; for errors */
    const jinja_program *program;
    jinja_value         *globals; /* by name number */
    jinja_builder       *out;
    int64_t              now_unix_s;
} jinja;

enum { JINJA_EVAL_DEPTH_MAX = 1000, JINJA_RANGE_MAX = 100000, JINJA_STRING_BYTES_MAX = 1 << 30 };

/* Ends the parse or render: "chat template, line 7: <text>". */
_Noreturn void jinja_fail(jinja *j, error_code code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Zeroed memory; fails with ERR_NO_MEMORY. */
void *jinja_take(jinja *j, size_t n, size_t size);

/* Counts work; fails past CHAT_TEMPLATE_STEPS_MAX. `bytes` is text touched, `items` values touched. */
void jinja_charge_bytes(jinja *j, size_t bytes);
void jinja_charge_items(jinja *j, size_t items);

/* Around everything that recurses: fails when nested too deep. */
void               jinja_enter(jinja *j);
static inline void jinja_leave(jinja *j)
{
    j->depth--;
}

typedef enum {
    JINJA_MISSING, /* an argument that was not given; never seen by a template */
    JINJA_UNDEFINED,
    JINJA_NONE,
    JINJA_BOOL,
    JINJA_INT,
    JINJA_FLOAT,
    JINJA_STRING,
    JINJA_LIST,
    JINJA_TUPLE,
    JINJA_RANGE,
    JINJA_VIEW,     /* dict.keys(), .values(), .items() */
    JINJA_ITERATOR, /* what map, select, reverse and so on give: can be walked once, has no length */
    JINJA_DICT,
    JINJA_NAMESPACE,
    JINJA_CALLABLE,
    JINJA_LOOP,
    JINJA_CYCLER,
    N_JINJA_KINDS,
} jinja_kind;

struct jinja_value {
    uint8_t kind;
    bool    untrusted; /* bool, int, float: came from the variables. Strings carry their own marks. */
    uint8_t owner;     /* undefined: the kind of the value that lacks `name`; JINJA_MISSING for a variable */
    union {
        bool            boolean;
        int64_t         integer;
        double          number;
        jinja_string   *string;
        jinja_sequence *sequence; /* list, tuple, range, view, iterator */
        jinja_dict     *dict;     /* dict, namespace */
        jinja_callable *callable;
        jinja_loop     *loop;
        jinja_cycler   *cycler;
        const span     *name; /* undefined: what was looked for; may be NULL */
    };
};

typedef struct {
    size_t end; /* offset behind the run's last byte */
    bool   untrusted;
} jinja_mark;

struct jinja_string {
    span                text;      /* data is NULL while a rope */
    size_t              n_chars;   /* SIZE_MAX: not counted yet */
    bool                untrusted; /* of all bytes, when n_marks is 0 */
    uint32_t            n_marks;
    jinja_mark         *marks; /* n_marks runs of alternating origin */
    const jinja_string *left, *right;
    uint32_t            n_leaves;
};

struct jinja_sequence {
    jinja_value *items; /* NULL for a range */
    size_t       n;
    int64_t      start, step; /* range */
    size_t       next;        /* iterator: how far it was walked */
    const char  *view;        /* view: "dict_keys", ... */
};

struct jinja_dict {
    jinja_value *keys, *values;
    size_t       n, capacity;
};

struct jinja_cycler {
    jinja_value *items;
    size_t       n, at;
};

/* ---- constructors ---- */

static inline jinja_value jinja_none(void)
{
    return (jinja_value){.kind = JINJA_NONE};
}
static inline jinja_value jinja_bool(bool b)
{
    return (jinja_value){.kind = JINJA_BOOL, .boolean = b};
}
static inline jinja_value jinja_int(int64_t i)
{
    return (jinja_value){.kind = JINJA_INT, .integer = i};
}
static inline jinja_value jinja_float(double d)
{
    return (jinja_value){.kind = JINJA_FLOAT, .number = d};
}
static inline jinja_value jinja_undefined(uint8_t owner, const span *name)
{
    return (jinja_value){.kind = JINJA_UNDEFINED, .owner = owner, .name = name};
}
static inline jinja_value jinja_of(jinja_string *s)
{
    return (jinja_value){.kind = JINJA_STRING, .string = s};
}
jinja_value jinja_text_value(jinja *j, span text, bool untrusted);
jinja_value jinja_literal(jinja *j, const char *text); /* trusted, borrowed */

/* A list (or tuple, iterator, view) of n items, zeroed; the caller fills .sequence->items. */
jinja_value jinja_sequence_new(jinja *j, jinja_kind kind, size_t n);
jinja_value jinja_range(jinja *j, int64_t start, int64_t stop, int64_t step);
jinja_value jinja_pair(jinja *j, jinja_value first, jinja_value second);

/* A list that grows: jinja_append doubles the items as needed. */
void jinja_append(jinja *j, jinja_sequence *s, size_t *capacity, jinja_value item);

jinja_value  jinja_dict_new(jinja *j, jinja_kind kind, size_t capacity);
void         jinja_dict_set(jinja *j, jinja_dict *d, jinja_value key, jinja_value value);
jinja_value *jinja_dict_find(jinja *j, const jinja_dict *d, jinja_value key); /* NULL when absent or unhashable */
jinja_value *jinja_dict_find_text(const jinja_dict *d, span key);

/* ---- what Python's protocols say ---- */

const char    *jinja_type_name(jinja_value v); /* "str", "dict", "NoneType" */
_Noreturn void jinja_fail_undefined(jinja *j, jinja_value undefined);
_Noreturn void jinja_fail_type(jinja *j, const char *what, jinja_value v); /* "<what>: 'int' object" */

bool    jinja_truth(jinja_value v);
bool    jinja_is_number(jinja_value v);  /* int, float, bool */
bool    jinja_is_integer(jinja_value v); /* int, bool */
double  jinja_to_double(jinja_value v);
int64_t jinja_to_integer(jinja *j, jinja_value v, const char *what); /* fails unless int or bool */
bool    jinja_equal(jinja *j, jinja_value a, jinja_value b);
int     jinja_compare(jinja *j, jinja_value a, jinja_value b, const char *operator_text); /* <0, 0, >0; NaN gives 2 */
bool    jinja_contains(jinja *j, jinja_value container, jinja_value item);

/* len(v); false when v has no length. */
bool jinja_length(jinja *j, jinja_value v, size_t *n);

/* Everything v iterates over, as a sequence to be read with jinja_item; an iterator is used up. Fails when v can't. */
jinja_sequence *jinja_iterate(jinja *j, jinja_value v);
bool            jinja_is_iterable(jinja_value v);
jinja_value     jinja_item(const jinja_sequence *s, size_t i);

/* Whether any text inside came from the variables. */
bool jinja_is_untrusted(jinja *j, jinja_value v);

/* ---- strings (jinja_string.c) ---- */

jinja_string *jinja_string_new(jinja *j, span text, bool untrusted);
jinja_string *jinja_string_concat(jinja *j, const jinja_string *a, const jinja_string *b);
span          jinja_string_text(jinja *j, const jinja_string *s); /* flattens a rope, once */
size_t        jinja_string_n_chars(jinja *j, const jinja_string *s);
bool          jinja_string_is_untrusted(jinja *j, const jinja_string *s);         /* any byte of it */
bool          jinja_string_origin_at(jinja *j, const jinja_string *s, size_t at); /* untrusted at byte `at` */

/* Bytes [begin, end); both on character boundaries. */
jinja_string *jinja_string_slice(jinja *j, const jinja_string *s, size_t begin, size_t end);

/* The byte where character `n` begins; text.size when n is at or past the end. */
size_t jinja_string_offset(jinja *j, const jinja_string *s, size_t n);

/* str(v): the string itself, or the printed form. */
jinja_string *jinja_str(jinja *j, jinja_value v);
span          jinja_str_text(jinja *j, jinja_value v);

/* Text being made. */
struct jinja_builder {
    jinja      *j;
    char       *data;
    size_t      size, capacity, size_max;
    jinja_mark *marks;
    size_t      n_marks, marks_capacity;
};

void          jinja_builder_start(jinja_builder *b, jinja *j);
void          jinja_builder_add(jinja_builder *b, span text, bool untrusted);
void          jinja_builder_add_char(jinja_builder *b, uint32_t code_point, bool untrusted);
void          jinja_builder_add_string(jinja_builder *b, const jinja_string *s);
jinja_string *jinja_builder_finish(jinja_builder *b);

/* Python's str.isspace for one code point. */
bool jinja_is_space(uint32_t code_point);

/* The code point at byte *at of text, which is valid UTF-8; moves *at behind it. */
uint32_t jinja_next_char(span text, size_t *at);

/* First occurrence of `needle` at or after byte `from`, SIZE_MAX when there is none. */
size_t jinja_find(jinja *j, span haystack, span needle, size_t from);

/* ---- printing (jinja_print.c, jinja_json.c) ---- */

void          jinja_print_repr(jinja *j, jinja_builder *out, jinja_value v, bool untrusted);
jinja_string *jinja_repr(jinja *j, jinja_value v);

enum { JINJA_NUMBER_BYTES = 64 };
int jinja_format_float(char out[JINJA_NUMBER_BYTES], double number); /* Python's repr(float) */

typedef struct {
    bool ascii, sort_keys, multiline;
    span indent, item_separator, key_separator;
} jinja_json_style;

jinja_string *jinja_json(jinja *j, jinja_value v, const jinja_json_style *style);

#endif
