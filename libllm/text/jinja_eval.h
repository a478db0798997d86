/* The evaluator's inner contract: scopes, calls, and the tables of filters, tests, methods and functions. Private to
 * the chat templates. */
#ifndef TROUPE_TEXT_JINJA_EVAL_H
#define TROUPE_TEXT_JINJA_EVAL_H

#include "text/jinja_parser.h"

/* ---- scopes: NULL is the template's top level, whose variables are in j->globals ---- */

typedef struct jinja_binding {
    uint32_t              name;
    jinja_value           value; /* JINJA_MISSING: not set in this turn of a loop */
    struct jinja_binding *next;
} jinja_binding;

struct jinja_scope {
    jinja_scope   *parent;
    jinja_binding *bindings;
    bool           captured; /* a macro made here may outlive a turn of the loop */
};

jinja_scope *jinja_scope_new(jinja *j, jinja_scope *parent);
void         jinja_scope_set(jinja *j, jinja_scope *scope, uint32_t name, jinja_value value);

/* ---- calls ---- */

typedef struct {
    span        name;
    jinja_value value;
} jinja_keyword;

typedef struct {
    jinja_value   *values;
    size_t         n;
    jinja_keyword *keywords;
    size_t         n_keywords;
} jinja_arguments;

enum { JINJA_PARAMETERS_MAX = 5 };

typedef struct {
    jinja_value            self;                    /* what a filter filters, a test tests, a method is called on */
    jinja_value            a[JINJA_PARAMETERS_MAX]; /* by `parameters` below; JINJA_MISSING where not given */
    const jinja_arguments *arguments;               /* as written */
    const jinja_builtin   *builtin;
    jinja_callable        *callable; /* for functions with a state */
} jinja_call;

/* A filter, test, method or function in C. */
struct jinja_builtin {
    const char *name;
    jinja_value (*call)(jinja *j, const jinja_call *call);
    const char *parameters; /* "old new count=": in order, '=' marks what may be left out; NULL takes anything */
};

struct jinja_callable {
    const jinja_builtin *builtin; /* or */
    const jinja_node    *macro;   /* NODE_MACRO or NODE_CALL_BLOCK */
    jinja_scope         *scope;   /* where the macro was made */
    jinja_value          self;
    bool                 used; /* joiner */
};

struct jinja_loop {
    jinja_sequence   *source;
    size_t            source_next; /* items of source that went through the loop's `if` */
    jinja_sequence   *items;       /* those that passed it; is `source` when there is no `if` */
    size_t            items_capacity;
    size_t            index0;
    uint32_t          depth0;
    const jinja_node *node;
    jinja_scope      *scope; /* around the loop */
    jinja_value       changed;
};

/* Sees to it that the loop knows its first n items, if there are so many. */
void jinja_loop_fill(jinja *j, jinja_loop *loop, size_t n);

jinja_value jinja_invoke(jinja *j, const jinja_builtin *builtin, jinja_value self, const jinja_arguments *arguments,
                         jinja_callable *callable);
jinja_value jinja_callable_new(jinja *j, const jinja_builtin *builtin, jinja_value self);
jinja_value jinja_call_value(jinja *j, jinja_value callee, const jinja_arguments *arguments);
jinja_value jinja_call_macro(jinja *j, const jinja_callable *macro, const jinja_arguments *arguments);
jinja_value jinja_call_loop(jinja *j, const jinja_loop *loop, jinja_value iterable);

/* ---- evaluation ---- */

typedef enum { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE } jinja_flow;

jinja_value     jinja_evaluate(jinja *j, jinja_scope *scope, const jinja_node *expression);
jinja_arguments jinja_evaluate_arguments(jinja *j, jinja_scope *scope, const jinja_node *call, size_t n_extra_keywords);
jinja_value     jinja_apply_filters(jinja *j, jinja_scope *scope, const jinja_node *filter, jinja_value innermost);
jinja_flow      jinja_execute(jinja *j, jinja_scope *scope, const jinja_node *body);

/* The program into j->out. */
void jinja_run(jinja *j);

/* value.name and value[key], undefined when there is none. `name` must outlive the render's values. */
jinja_value jinja_attribute(jinja *j, jinja_value value, const span *name);
jinja_value jinja_subscript(jinja *j, jinja_value value, jinja_value key);
jinja_value jinja_slice(jinja *j, jinja_value value, jinja_value start, jinja_value stop, jinja_value step);

jinja_value jinja_binary(jinja *j, uint8_t operator_token, jinja_value a, jinja_value b);
jinja_value jinja_repeat(jinja *j, jinja_value sequence, int64_t n);
bool        jinja_compare_by(jinja *j, uint8_t operator_token, jinja_value a, jinja_value b);

/* ---- tables; NULL when unknown ---- */

const jinja_builtin *jinja_find_filter(span name);
const jinja_builtin *jinja_find_text_filter(span name);
const jinja_builtin *jinja_find_test(span name);
const jinja_builtin *jinja_find_method(jinja_kind kind, span name);
const jinja_builtin *jinja_find_string_method(span name);
const jinja_builtin *jinja_find_function(span name);
const jinja_builtin *jinja_find_in(const jinja_builtin *table, size_t n, span name);

/* ---- shared by filters and methods (jinja_text.c, jinja_format.c, jinja_case.c) ---- */

enum { JINJA_STRIP_LEFT = 1, JINJA_STRIP_RIGHT = 2 };
jinja_string *jinja_strip(jinja *j, const jinja_string *s, jinja_value characters, int sides);
jinja_string *jinja_replace(jinja *j, const jinja_string *s, span old, const jinja_string *new, int64_t count);
jinja_string *jinja_join(jinja *j, const jinja_string *separator, const jinja_sequence *items, bool only_strings);
jinja_string *jinja_pad(jinja *j, const jinja_string *s, size_t left, size_t right, uint32_t fill);
jinja_value   jinja_split_lines(jinja *j, const jinja_string *s, bool keep_ends);
bool          jinja_parse_integer(span text, int base, int64_t *value); /* as Python's int(text, base) */
bool          jinja_parse_float(span text, double *value);              /* as Python's float(text) */

typedef enum { CASE_UPPER, CASE_LOWER, CASE_CAPITALIZE, CASE_TITLE, CASE_SWAP, CASE_FOLD } jinja_case;
jinja_string *jinja_change_case(jinja *j, const jinja_string *s, jinja_case to);

jinja_string *jinja_percent_format(jinja *j, const jinja_string *format, jinja_value arguments);
jinja_string *jinja_brace_format(jinja *j, const jinja_string *format, const jinja_arguments *arguments);

#endif
