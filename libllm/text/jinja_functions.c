/* The functions a template finds without being given any: Jinja's own and the two that transformers adds. */
#include "text/jinja_eval.h"

#include <time.h>

static jinja_value function_range(jinja *j, const jinja_call *c)
{
    int64_t n[3] = {0, 0, 1};
    for (int i = 0; i < 3 && c->a[i].kind != JINJA_MISSING; i++)
        n[i] = jinja_to_integer(j, c->a[i], "range needs integers");
    if (c->a[1].kind == JINJA_MISSING)
        return jinja_range(j, 0, n[0], 1);
    return jinja_range(j, n[0], n[1], n[2]);
}

/* dict(mapping or pairs, key=value, ...), into d. */
static void fill_dict(jinja *j, jinja_dict *d, const jinja_arguments *arguments)
{
    if (arguments->n > 1)
        jinja_fail(j, ERR_INVALID, "dict expected at most 1 argument, got %zu", arguments->n);
    if (arguments->n == 1 && arguments->values[0].kind == JINJA_DICT) {
        const jinja_dict *from = arguments->values[0].dict;
        for (size_t i = 0; i < from->n; i++)
            jinja_dict_set(j, d, from->keys[i], from->values[i]);
    } else if (arguments->n == 1) {
        const jinja_sequence *pairs = jinja_iterate(j, arguments->values[0]);
        for (size_t i = 0; i < pairs->n; i++) {
            const jinja_sequence *pair = jinja_iterate(j, jinja_item(pairs, i));
            if (pair->n != 2)
                jinja_fail(j, ERR_INVALID, "dictionary update sequence element %zu has length %zu; 2 is required", i,
                           pair->n);
            jinja_dict_set(j, d, jinja_item(pair, 0), jinja_item(pair, 1));
        }
    }
    for (size_t i = 0; i < arguments->n_keywords; i++)
        jinja_dict_set(j, d, jinja_text_value(j, arguments->keywords[i].name, false), arguments->keywords[i].value);
}

static jinja_value function_dict(jinja *j, const jinja_call *c)
{
    jinja_value v = jinja_dict_new(j, JINJA_DICT, 8);
    fill_dict(j, v.dict, c->arguments);
    return v;
}

static jinja_value function_namespace(jinja *j, const jinja_call *c)
{
    jinja_value v = jinja_dict_new(j, JINJA_NAMESPACE, 8);
    fill_dict(j, v.dict, c->arguments);
    return v;
}

static jinja_value joiner_call(jinja *j, const jinja_call *c)
{
    bool used         = c->callable->used;
    c->callable->used = true;
    return used ? c->self : jinja_literal(j, "");
}

static jinja_value function_joiner(jinja *j, const jinja_call *c)
{
    static const jinja_builtin call = {"joiner", joiner_call, ""};
    return jinja_callable_new(j, &call, c->a[0].kind == JINJA_MISSING ? jinja_literal(j, ", ") : c->a[0]);
}

static jinja_value function_cycler(jinja *j, const jinja_call *c)
{
    if (c->arguments->n == 0)
        jinja_fail(j, ERR_INVALID, "at least one item has to be provided");
    jinja_value v   = {.kind = JINJA_CYCLER, .cycler = jinja_take(j, 1, sizeof *v.cycler)};
    v.cycler->items = c->arguments->values;
    v.cycler->n     = c->arguments->n;
    return v;
}

/* The template refuses these messages: its own words are the error. */
static jinja_value function_raise_exception(jinja *j, const jinja_call *c)
{
    span text = jinja_str_text(j, c->a[0]);
    if (text.size == 0 || text.data[0] == '\0')
        text = SPAN("the chat template refuses this conversation without a reason");
    error_set(j->err, ERR_INVALID, "%.*s", SPAN_ARG(text));
    longjmp(*j->failure, 1);
}

static jinja_value function_strftime_now(jinja *j, const jinja_call *c)
{
    char                text[512];
    struct tm           parts;
    time_t              now    = (time_t)j->now_unix_s;
    const jinja_string *format = jinja_str(j, c->a[0]);
    span                f      = jinja_string_text(j, format);
    char                pattern[256];
    if (f.size >= sizeof pattern || !gmtime_r(&now, &parts))
        jinja_fail(j, ERR_INVALID, "strftime_now: the format is too long or the time out of range");
    memcpy(pattern, f.data, f.size);
    pattern[f.size] = '\0';
    size_t n        = strftime(text, sizeof text, pattern, &parts);
    if (n == 0 && f.size > 0)
        jinja_fail(j, ERR_INVALID, "strftime_now: the format gives no text or too much");
    jinja_builder out;
    jinja_builder_start(&out, j);
    jinja_builder_add(&out, (span){text, n}, jinja_string_is_untrusted(j, format));
    return jinja_of(jinja_builder_finish(&out));
}

static const jinja_builtin functions[] = {
    {"range", function_range, "start stop= step="},
    {"dict", function_dict, NULL},
    {"namespace", function_namespace, NULL},
    {"joiner", function_joiner, "sep="},
    {"cycler", function_cycler, NULL},
    {"raise_exception", function_raise_exception, "message"},
    {"strftime_now", function_strftime_now, "format"},
};

const jinja_builtin *jinja_find_function(span name)
{
    return jinja_find_in(functions, COUNT(functions), name);
}
