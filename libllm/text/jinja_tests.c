/* The tests behind `is`. */
#include "text/jinja_eval.h"

static jinja_value test_odd(jinja *j, const jinja_call *c)
{
    return jinja_bool(jinja_equal(j, jinja_binary(j, '%', c->self, jinja_int(2)), jinja_int(1)));
}

static jinja_value test_even(jinja *j, const jinja_call *c)
{
    return jinja_bool(jinja_equal(j, jinja_binary(j, '%', c->self, jinja_int(2)), jinja_int(0)));
}

static jinja_value test_divisible_by(jinja *j, const jinja_call *c)
{
    return jinja_bool(!jinja_truth(jinja_binary(j, '%', c->self, c->a[0])));
}

/* One test a kind: the table below says which, by the test's name. */
static jinja_value test_kind(jinja *j, const jinja_call *c)
{
    (void)j;
    static const struct {
        const char *name;
        uint32_t    kinds;
    } table[] = {
        {"undefined", 1 << JINJA_UNDEFINED},
        {"none", 1 << JINJA_NONE},
        {"boolean", 1 << JINJA_BOOL},
        {"integer", 1 << JINJA_INT},
        {"float", 1 << JINJA_FLOAT},
        {"number", 1 << JINJA_BOOL | 1 << JINJA_INT | 1 << JINJA_FLOAT},
        {"string", 1 << JINJA_STRING},
        {"mapping", 1 << JINJA_DICT},
        {"sequence", 1 << JINJA_STRING | 1 << JINJA_LIST | 1 << JINJA_TUPLE | 1 << JINJA_RANGE | 1 << JINJA_DICT |
                         1 << JINJA_UNDEFINED},
        {"callable", 1 << JINJA_CALLABLE | 1 << JINJA_LOOP | 1 << JINJA_UNDEFINED},
    };
    for (size_t i = 0; i < COUNT(table); i++)
        if (strcmp(table[i].name, c->builtin->name) == 0)
            return jinja_bool(table[i].kinds >> c->self.kind & 1);
    return jinja_bool(false);
}

static jinja_value test_defined(jinja *j, const jinja_call *c)
{
    (void)j;
    return jinja_bool(c->self.kind != JINJA_UNDEFINED);
}

static jinja_value test_iterable(jinja *j, const jinja_call *c)
{
    (void)j;
    return jinja_bool(jinja_is_iterable(c->self));
}

static jinja_value test_true(jinja *j, const jinja_call *c)
{
    (void)j;
    return jinja_bool(c->self.kind == JINJA_BOOL && c->self.boolean);
}

static jinja_value test_false(jinja *j, const jinja_call *c)
{
    (void)j;
    return jinja_bool(c->self.kind == JINJA_BOOL && !c->self.boolean);
}

static jinja_value test_lower_or_upper(jinja *j, const jinja_call *c)
{
    const jinja_builtin *method =
        jinja_find_string_method(c->builtin->name[0] == 'l' ? SPAN("islower") : SPAN("isupper"));
    return jinja_invoke(j, method, jinja_of(jinja_str(j, c->self)), &(jinja_arguments){0}, NULL);
}

static jinja_value test_same_as(jinja *j, const jinja_call *c)
{
    jinja_value a = c->self, b = c->a[0];
    if (a.kind != b.kind)
        return jinja_bool(false);
    if (jinja_is_number(a) || a.kind == JINJA_NONE)
        return jinja_bool(jinja_equal(j, a, b));
    return jinja_bool(a.string == b.string);
}

static jinja_value test_in(jinja *j, const jinja_call *c)
{
    return jinja_bool(jinja_contains(j, c->a[0], c->self));
}

static jinja_value test_escaped(jinja *j, const jinja_call *c)
{
    (void)j, (void)c; /* nothing is ever marked as HTML here */
    return jinja_bool(false);
}

static jinja_value test_filter(jinja *j, const jinja_call *c)
{
    return jinja_bool(jinja_find_filter(jinja_str_text(j, c->self)) != NULL);
}

static jinja_value test_test(jinja *j, const jinja_call *c)
{
    return jinja_bool(jinja_find_test(jinja_str_text(j, c->self)) != NULL);
}

static jinja_value test_equal(jinja *j, const jinja_call *c)
{
    return jinja_bool(jinja_compare_by(j, TOKEN_EQUAL, c->self, c->a[0]));
}

static jinja_value test_not_equal(jinja *j, const jinja_call *c)
{
    return jinja_bool(jinja_compare_by(j, TOKEN_NOT_EQUAL, c->self, c->a[0]));
}

static jinja_value test_greater(jinja *j, const jinja_call *c)
{
    return jinja_bool(jinja_compare_by(j, '>', c->self, c->a[0]));
}

static jinja_value test_at_least(jinja *j, const jinja_call *c)
{
    return jinja_bool(jinja_compare_by(j, TOKEN_AT_LEAST, c->self, c->a[0]));
}

static jinja_value test_less(jinja *j, const jinja_call *c)
{
    return jinja_bool(jinja_compare_by(j, '<', c->self, c->a[0]));
}

static jinja_value test_at_most(jinja *j, const jinja_call *c)
{
    return jinja_bool(jinja_compare_by(j, TOKEN_AT_MOST, c->self, c->a[0]));
}

static const jinja_builtin tests[] = {
    {"odd", test_odd, ""},
    {"even", test_even, ""},
    {"divisibleby", test_divisible_by, "num"},
    {"defined", test_defined, ""},
    {"undefined", test_kind, ""},
    {"none", test_kind, ""},
    {"boolean", test_kind, ""},
    {"true", test_true, ""},
    {"false", test_false, ""},
    {"integer", test_kind, ""},
    {"float", test_kind, ""},
    {"number", test_kind, ""},
    {"string", test_kind, ""},
    {"mapping", test_kind, ""},
    {"sequence", test_kind, ""},
    {"iterable", test_iterable, ""},
    {"callable", test_kind, ""},
    {"lower", test_lower_or_upper, ""},
    {"upper", test_lower_or_upper, ""},
    {"sameas", test_same_as, "other"},
    {"escaped", test_escaped, ""},
    {"in", test_in, "seq"},
    {"filter", test_filter, ""},
    {"test", test_test, ""},
    {"==", test_equal, "other"},
    {"eq", test_equal, "other"},
    {"equalto", test_equal, "other"},
    {"!=", test_not_equal, "other"},
    {"ne", test_not_equal, "other"},
    {">", test_greater, "other"},
    {"gt", test_greater, "other"},
    {"greaterthan", test_greater, "other"},
    {">=", test_at_least, "other"},
    {"ge", test_at_least, "other"},
    {"<", test_less, "other"},
    {"lt", test_less, "other"},
    {"lessthan", test_less, "other"},
    {"<=", test_at_most, "other"},
    {"le", test_at_most, "other"},
};

const jinja_builtin *jinja_find_in(const jinja_builtin *table, size_t n, span name)
{
    for (size_t i = 0; i < n; i++)
        if (span_is(name, table[i].name))
            return &table[i];
    return NULL;
}

const jinja_builtin *jinja_find_test(span name)
{
    return jinja_find_in(tests, COUNT(tests), name);
}
