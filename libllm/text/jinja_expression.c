/* Evaluates expressions: names, attributes, items, slices, calls, and the operators that are not arithmetic. */
#include "text/jinja_eval.h"

/* ---- names ---- */

static jinja_value look_up(jinja *j, const jinja_scope *scope, uint32_t name)
{
    for (; scope; scope = scope->parent)
        for (const jinja_binding *b = scope->bindings; b; b = b->next)
            if (b->name == name && b->value.kind != JINJA_MISSING)
                return b->value;
    if (j->globals[name].kind != JINJA_MISSING)
        return j->globals[name];
    return jinja_undefined(JINJA_MISSING, &j->program->names[name]);
}

/* ---- attributes and items ---- */

static jinja_value loop_attribute(jinja *j, jinja_loop *loop, span name, const span *name_at)
{
    int64_t index0 = (int64_t)loop->index0;
    if (span_is(name, "index0"))
        return jinja_int(index0);
    if (span_is(name, "index"))
        return jinja_int(index0 + 1);
    if (span_is(name, "first"))
        return jinja_bool(index0 == 0);
    if (span_is(name, "depth0"))
        return jinja_int(loop->depth0);
    if (span_is(name, "depth"))
        return jinja_int((int64_t)loop->depth0 + 1);
    if (span_is(name, "previtem"))
        return index0 == 0 ? jinja_undefined(JINJA_LOOP, name_at) : jinja_item(loop->items, loop->index0 - 1);
    if (span_is(name, "last") || span_is(name, "nextitem")) {
        jinja_loop_fill(j, loop, loop->index0 + 2);
        bool last = loop->index0 + 1 >= loop->items->n;
        if (span_is(name, "last"))
            return jinja_bool(last);
        return last ? jinja_undefined(JINJA_LOOP, name_at) : jinja_item(loop->items, loop->index0 + 1);
    }
    bool length = span_is(name, "length"), revindex = span_is(name, "revindex");
    if (length || revindex || span_is(name, "revindex0")) {
        jinja_loop_fill(j, loop, SIZE_MAX);
        int64_t n = (int64_t)loop->items->n;
        return jinja_int(length ? n : revindex ? n - index0 : n - index0 - 1);
    }
    return jinja_undefined(JINJA_LOOP, name_at);
}

static jinja_value macro_attribute(jinja *j, const jinja_node *macro, span name, const span *name_at)
{
    if (span_is(name, "name"))
        return macro->kind == NODE_MACRO ? jinja_text_value(j, macro->text, false) : jinja_none();
    if (span_is(name, "caller"))
        return jinja_bool(macro->flag & MACRO_USES_CALLER);
    if (span_is(name, "catch_kwargs"))
        return jinja_bool(macro->flag & MACRO_USES_KWARGS);
    if (span_is(name, "catch_varargs"))
        return jinja_bool(macro->flag & MACRO_USES_VARARGS);
    if (!span_is(name, "arguments"))
        return jinja_undefined(JINJA_CALLABLE, name_at);
    jinja_value names = jinja_sequence_new(j, JINJA_TUPLE, macro->n_items);
    size_t      i     = 0;
    for (const jinja_node *p = macro->items; p; p = p->next)
        names.sequence->items[i++] = jinja_text_value(j, p->text, false);
    return names;
}

/* What Python's getattr finds; JINJA_MISSING when there is no such attribute. */
static jinja_value own_attribute(jinja *j, jinja_value value, const span *name_at)
{
    span name = *name_at;
    if (name.size > 1 && name.data[0] == '_' && name.data[1] == '_')
        return jinja_undefined(value.kind, name_at); /* Python's inner attributes: the sandbox hides them */
    const jinja_builtin *method = jinja_find_method((jinja_kind)value.kind, name);
    if (method) /* one without a function is unsafe: it would change its object */
        return method->call ? jinja_callable_new(j, method, value) : jinja_undefined(value.kind, name_at);
    jinja_value *found = NULL;
    switch ((jinja_kind)value.kind) {
    case JINJA_NAMESPACE:
        jinja_charge_items(j, value.dict->n);
        found = jinja_dict_find_text(value.dict, name);
        break;
    case JINJA_LOOP:
        return loop_attribute(j, value.loop, name, name_at);
    case JINJA_CYCLER:
        if (span_is(name, "current"))
            return value.cycler->items[value.cycler->at];
        break;
    case JINJA_CALLABLE:
        if (value.callable->macro)
            return macro_attribute(j, value.callable->macro, name, name_at);
        break;
    case JINJA_TUPLE: /* groupby's pairs have names */
        if (value.sequence->view && (span_is(name, "grouper") || span_is(name, "list")))
            return value.sequence->items[span_is(name, "list")];
        break;
    default:
        break;
    }
    return found ? *found : (jinja_value){0};
}

jinja_value jinja_attribute(jinja *j, jinja_value value, const span *name)
{
    if (value.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(j, value);
    jinja_value found = own_attribute(j, value, name);
    if (found.kind != JINJA_MISSING)
        return found;
    if (value.kind == JINJA_DICT) {
        jinja_charge_items(j, value.dict->n);
        jinja_value *item = jinja_dict_find_text(value.dict, *name);
        if (item)
            return *item;
    }
    return jinja_undefined(value.kind, name);
}

static bool normalize_index(int64_t index, size_t n, size_t *at)
{
    if (index < 0)
        index += (int64_t)n;
    *at = (size_t)index;
    return index >= 0 && (size_t)index < n;
}

jinja_value jinja_subscript(jinja *j, jinja_value value, jinja_value key)
{
    size_t at, n;
    if (value.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(j, value);
    if (value.kind == JINJA_DICT) {
        jinja_value *found = jinja_dict_find(j, value.dict, key);
        if (found)
            return *found;
    } else if (jinja_is_integer(key) && value.kind >= JINJA_STRING && value.kind <= JINJA_RANGE) {
        (void)jinja_length(j, value, &n);
        if (normalize_index(key.kind == JINJA_INT ? key.integer : key.boolean, n, &at)) {
            if (value.kind != JINJA_STRING)
                return jinja_item(value.sequence, at);
            size_t begin = jinja_string_offset(j, value.string, at), end = begin;
            (void)jinja_next_char(value.string->text, &end);
            return jinja_of(jinja_string_slice(j, value.string, begin, end));
        }
    }
    if (key.kind == JINJA_STRING) {
        (void)jinja_string_text(j, key.string);
        jinja_value found = own_attribute(j, value, &key.string->text);
        if (found.kind != JINJA_MISSING)
            return found;
        return jinja_undefined(value.kind, &key.string->text);
    }
    return jinja_undefined(value.kind, &jinja_str(j, key)->text);
}

/* Python's slice.indices: the first index, the step, and how many there are. */
static size_t slice_indices(jinja *j, size_t length, jinja_value start, jinja_value stop, jinja_value step,
                            int64_t *first, int64_t *stride)
{
    static const char what[] = "slice indices must be integers or None";
    int64_t           n      = (int64_t)length;
    *stride                  = step.kind == JINJA_NONE ? 1 : jinja_to_integer(j, step, what);
    if (*stride == 0)
        jinja_fail(j, ERR_INVALID, "slice step cannot be zero");
    if (*stride < -INT64_MAX)
        *stride = -INT64_MAX;
    int64_t low = *stride < 0 ? -1 : 0, high = *stride < 0 ? n - 1 : n;
    int64_t bounds[2] = {*stride < 0 ? high : low, *stride < 0 ? low : high};
    for (int i = 0; i < 2; i++) {
        jinja_value v = i == 0 ? start : stop;
        if (v.kind == JINJA_NONE)
            continue;
        int64_t at = jinja_to_integer(j, v, what);
        if (at < 0)
            at = at + n < low ? low : at + n;
        bounds[i] = at > high ? high : at;
    }
    *first = bounds[0];
    if (*stride > 0)
        return bounds[0] < bounds[1] ? (size_t)((bounds[1] - bounds[0] - 1) / *stride + 1) : 0;
    return bounds[0] > bounds[1] ? (size_t)((bounds[0] - bounds[1] - 1) / -*stride + 1) : 0;
}

jinja_value jinja_slice(jinja *j, jinja_value value, jinja_value start, jinja_value stop, jinja_value step)
{
    size_t  length, n;
    int64_t first, stride;
    if (value.kind < JINJA_STRING || value.kind > JINJA_RANGE)
        jinja_fail_type(j, "this can't be sliced", value);
    (void)jinja_length(j, value, &length);
    n = slice_indices(j, length, start, stop, step, &first, &stride);
    if (value.kind == JINJA_STRING) {
        if (stride == 1 || n <= 1) {
            size_t begin = n ? jinja_string_offset(j, value.string, (size_t)first) : 0;
            size_t end   = n ? jinja_string_offset(j, value.string, (size_t)first + n) : 0;
            return jinja_of(jinja_string_slice(j, value.string, begin, end));
        }
        const jinja_sequence *characters = jinja_iterate(j, value);
        jinja_builder         out;
        jinja_builder_start(&out, j);
        for (size_t i = 0; i < n; i++)
            jinja_builder_add_string(&out, characters->items[first + (int64_t)i * stride].string);
        return jinja_of(jinja_builder_finish(&out));
    }
    if (value.kind == JINJA_RANGE) {
        jinja_value part = {.kind = JINJA_RANGE, .sequence = jinja_take(j, 1, sizeof *part.sequence)};
        *part.sequence   = (jinja_sequence){.n     = n,
                                            .start = jinja_item(value.sequence, (size_t)first).integer,
                                            .step  = (int64_t)((uint64_t)value.sequence->step * (uint64_t)stride)};
        return part;
    }
    jinja_value part = jinja_sequence_new(j, (jinja_kind)value.kind, n);
    for (size_t i = 0; i < n; i++)
        part.sequence->items[i] = value.sequence->items[first + (int64_t)i * stride];
    return part;
}

static jinja_value evaluate_item(jinja *j, jinja_scope *scope, const jinja_node *node)
{
    jinja_value       value = jinja_evaluate(j, scope, node->a);
    const jinja_node *index = node->b;
    if (index->kind != NODE_SLICE)
        return jinja_subscript(j, value, jinja_evaluate(j, scope, index));
    jinja_value start = index->a ? jinja_evaluate(j, scope, index->a) : jinja_none();
    jinja_value stop  = index->b ? jinja_evaluate(j, scope, index->b) : jinja_none();
    jinja_value step  = index->c ? jinja_evaluate(j, scope, index->c) : jinja_none();
    return jinja_slice(j, value, start, stop, step);
}

/* ---- calls ---- */

static void add_keyword(jinja *j, jinja_arguments *arguments, size_t *capacity, span name, jinja_value value)
{
    if (arguments->n_keywords + 1 >= *capacity) { /* one stays free for a call block's caller */
        size_t         grown    = 2 * *capacity + 2;
        jinja_keyword *keywords = jinja_take(j, grown, sizeof *keywords);
        if (arguments->n_keywords > 0)
            memcpy(keywords, arguments->keywords, arguments->n_keywords * sizeof *keywords);
        arguments->keywords = keywords;
        *capacity           = grown;
    }
    jinja_charge_items(j, arguments->n_keywords);
    for (size_t i = 0; i < arguments->n_keywords; i++)
        if (span_equal(arguments->keywords[i].name, name))
            jinja_fail(j, ERR_INVALID, "two values for the keyword argument '%.*s'", SPAN_ARG(name));
    arguments->keywords[arguments->n_keywords++] = (jinja_keyword){name, value};
}

jinja_arguments jinja_evaluate_arguments(jinja *j, jinja_scope *scope, const jinja_node *call, size_t n_extra_keywords)
{
    jinja_arguments arguments = {0};
    jinja_sequence  values    = {0};
    size_t          n_values = 0, n_keywords = 0;
    if (n_extra_keywords > 0) {
        n_keywords         = n_extra_keywords;
        arguments.keywords = jinja_take(j, n_keywords, sizeof *arguments.keywords);
    }
    for (const jinja_node *argument = call->items; argument; argument = argument->next) {
        jinja_value value = jinja_evaluate(j, scope, argument->a);
        if (argument->flag == ARGUMENT_POSITION)
            jinja_append(j, &values, &n_values, value);
        else if (argument->flag == ARGUMENT_KEYWORD)
            add_keyword(j, &arguments, &n_keywords, argument->text, value);
        else if (argument->flag == ARGUMENT_STAR) {
            const jinja_sequence *more = jinja_iterate(j, value);
            for (size_t i = 0; i < more->n; i++) {
                jinja_charge_items(j, 1);
                jinja_append(j, &values, &n_values, jinja_item(more, i));
            }
        } else {
            if (value.kind != JINJA_DICT)
                jinja_fail_type(j, "argument after ** must be a mapping", value);
            for (size_t i = 0; i < value.dict->n; i++) {
                if (value.dict->keys[i].kind != JINJA_STRING)
                    jinja_fail_type(j, "keywords must be strings", value.dict->keys[i]);
                add_keyword(j, &arguments, &n_keywords, jinja_str_text(j, value.dict->keys[i]), value.dict->values[i]);
            }
        }
    }
    arguments.values = values.items;
    arguments.n      = values.n;
    return arguments;
}

static bool word_is(const char *word, size_t size, span name)
{
    return span_equal((span){word, size}, name);
}

jinja_value jinja_invoke(jinja *j, const jinja_builtin *builtin, jinja_value self, const jinja_arguments *arguments,
                         jinja_callable *callable)
{
    jinja_call call = {.self = self, .arguments = arguments, .builtin = builtin, .callable = callable};
    if (!builtin->parameters)
        return builtin->call(j, &call);
    size_t n = 0, n_keywords = 0;
    for (const char *word = builtin->parameters; *word; n++) {
        size_t size     = strcspn(word, " ");
        bool   optional = word[size - 1] == '=';
        if (n < arguments->n)
            call.a[n] = arguments->values[n];
        for (size_t i = 0; i < arguments->n_keywords; i++)
            if (word_is(word, size - optional, arguments->keywords[i].name)) {
                if (n < arguments->n)
                    jinja_fail(j, ERR_INVALID, "%s got two values for '%.*s'", builtin->name, (int)(size - optional),
                               word);
                call.a[n] = arguments->keywords[i].value;
                n_keywords++;
            }
        if (call.a[n].kind == JINJA_MISSING && !optional)
            jinja_fail(j, ERR_INVALID, "%s needs an argument '%.*s'", builtin->name, (int)size, word);
        word += size;
        word += *word == ' ';
    }
    if (arguments->n > n)
        jinja_fail(j, ERR_INVALID, "%s takes at most %zu arguments, not %zu", builtin->name, n, arguments->n);
    if (n_keywords < arguments->n_keywords)
        jinja_fail(j, ERR_INVALID, "%s takes no keyword argument '%.*s'", builtin->name,
                   SPAN_ARG(arguments->keywords[arguments->n_keywords - 1].name));
    return builtin->call(j, &call);
}

jinja_value jinja_callable_new(jinja *j, const jinja_builtin *builtin, jinja_value self)
{
    jinja_value v       = {.kind = JINJA_CALLABLE, .callable = jinja_take(j, 1, sizeof *v.callable)};
    v.callable->builtin = builtin;
    v.callable->self    = self;
    return v;
}

jinja_value jinja_call_value(jinja *j, jinja_value callee, const jinja_arguments *arguments)
{
    if (callee.kind == JINJA_LOOP && arguments->n == 1 && arguments->n_keywords == 0)
        return jinja_call_loop(j, callee.loop, arguments->values[0]);
    if (callee.kind != JINJA_CALLABLE)
        jinja_fail_type(j, "this can't be called", callee);
    jinja_callable *callable = callee.callable;
    if (callable->macro)
        return jinja_call_macro(j, callable, arguments);
    return jinja_invoke(j, callable->builtin, callable->self, arguments, callable);
}

static jinja_value evaluate_call(jinja *j, jinja_scope *scope, const jinja_node *node)
{
    jinja_value     callee    = jinja_evaluate(j, scope, node->a);
    jinja_arguments arguments = jinja_evaluate_arguments(j, scope, node, 0);
    j->line                   = node->line;
    return jinja_call_value(j, callee, &arguments);
}

static const jinja_builtin *require(jinja *j, const jinja_node *node, const char *what)
{
    if (!node->builtin)
        jinja_fail(j, ERR_INVALID, "there is no %s named '%.*s'", what, SPAN_ARG(node->text));
    return node->builtin;
}

jinja_value jinja_apply_filters(jinja *j, jinja_scope *scope, const jinja_node *filter, jinja_value innermost)
{
    jinja_enter(j);
    jinja_value v = innermost;
    if (filter->a) /* only a filter block's first has no operand; it gets the block's text */
        v = filter->a->kind == NODE_FILTER ? jinja_apply_filters(j, scope, filter->a, innermost)
                                           : jinja_evaluate(j, scope, filter->a);
    jinja_arguments arguments = jinja_evaluate_arguments(j, scope, filter, 0);
    v                         = jinja_invoke(j, require(j, filter, "filter"), v, &arguments, NULL);
    jinja_leave(j);
    return v;
}

static jinja_value evaluate_test(jinja *j, jinja_scope *scope, const jinja_node *node)
{
    jinja_value     v         = jinja_evaluate(j, scope, node->a);
    jinja_arguments arguments = jinja_evaluate_arguments(j, scope, node, 0);
    return jinja_invoke(j, require(j, node, "test"), v, &arguments, NULL);
}

/* ---- the rest ---- */

bool jinja_compare_by(jinja *j, uint8_t operator_token, jinja_value a, jinja_value b)
{
    int order;
    switch (operator_token) {
    case TOKEN_EQUAL:
        return jinja_equal(j, a, b);
    case TOKEN_NOT_EQUAL:
        return !jinja_equal(j, a, b);
    case OPERAND_IN:
        return jinja_contains(j, b, a);
    case OPERAND_NOT_IN:
        return !jinja_contains(j, b, a);
    case '<':
        return jinja_compare(j, a, b, "<") < 0;
    case TOKEN_AT_MOST:
        return jinja_compare(j, a, b, "<=") <= 0;
    case '>':
        order = jinja_compare(j, a, b, ">");
        return order > 0 && order != 2;
    default:
        order = jinja_compare(j, a, b, ">=");
        return order >= 0 && order != 2;
    }
}

static jinja_value evaluate_comparison(jinja *j, jinja_scope *scope, const jinja_node *node)
{
    jinja_value left = jinja_evaluate(j, scope, node->a);
    for (const jinja_node *operand = node->items; operand; operand = operand->next) {
        jinja_value right = jinja_evaluate(j, scope, operand->a);
        if (!jinja_compare_by(j, operand->flag, left, right))
            return jinja_bool(false);
        left = right;
    }
    return jinja_bool(true);
}

static jinja_value evaluate_items(jinja *j, jinja_scope *scope, const jinja_node *node)
{
    jinja_value v = jinja_sequence_new(j, node->kind == NODE_LIST ? JINJA_LIST : JINJA_TUPLE, node->n_items);
    size_t      i = 0;
    for (const jinja_node *item = node->items; item; item = item->next)
        v.sequence->items[i++] = jinja_evaluate(j, scope, item);
    return v;
}

static jinja_value evaluate_dict(jinja *j, jinja_scope *scope, const jinja_node *node)
{
    jinja_value v = jinja_dict_new(j, JINJA_DICT, node->n_items / 2);
    for (const jinja_node *key = node->items; key; key = key->next->next) {
        jinja_value k = jinja_evaluate(j, scope, key);
        jinja_dict_set(j, v.dict, k, jinja_evaluate(j, scope, key->next));
    }
    return v;
}

static jinja_value evaluate_concat(jinja *j, jinja_scope *scope, const jinja_node *node)
{
    jinja_string *text = jinja_string_new(j, (span){"", 0}, false);
    for (const jinja_node *item = node->items; item; item = item->next)
        text = jinja_string_concat(j, text, jinja_str(j, jinja_evaluate(j, scope, item)));
    return jinja_of(text);
}

static jinja_value evaluate_sign(jinja *j, jinja_value v, bool negate)
{
    jinja_value result = v;
    if (v.kind == JINJA_FLOAT)
        result.number = negate ? -v.number : v.number;
    else {
        int64_t i = jinja_to_integer(j, v, "a sign needs a number");
        if (negate && i == INT64_MIN)
            jinja_fail(j, ERR_INVALID, "an integer does not fit in 64 bits");
        result           = jinja_int(negate ? -i : i);
        result.untrusted = v.untrusted;
    }
    return result;
}

static const span no_else = {"the else of an inline if", 24};

static jinja_value evaluate_node(jinja *j, jinja_scope *scope, const jinja_node *node)
{
    jinja_value v;
    switch ((jinja_node_kind)node->kind) {
    case NODE_CONSTANT:
        return node->value;
    case NODE_NAME:
        return look_up(j, scope, node->name);
    case NODE_LIST:
    case NODE_TUPLE:
        return evaluate_items(j, scope, node);
    case NODE_DICT:
        return evaluate_dict(j, scope, node);
    case NODE_ATTRIBUTE:
        return jinja_attribute(j, jinja_evaluate(j, scope, node->a), &node->text);
    case NODE_ITEM:
        return evaluate_item(j, scope, node);
    case NODE_CALL:
        return evaluate_call(j, scope, node);
    case NODE_FILTER:
        return jinja_apply_filters(j, scope, node, jinja_none());
    case NODE_TEST:
        return evaluate_test(j, scope, node);
    case NODE_NOT:
        return jinja_bool(!jinja_truth(jinja_evaluate(j, scope, node->a)));
    case NODE_NEGATE:
    case NODE_PLUS:
        return evaluate_sign(j, jinja_evaluate(j, scope, node->a), node->kind == NODE_NEGATE);
    case NODE_BINARY:
        v = jinja_evaluate(j, scope, node->a);
        return jinja_binary(j, node->flag, v, jinja_evaluate(j, scope, node->b));
    case NODE_CONCAT:
        return evaluate_concat(j, scope, node);
    case NODE_AND:
        v = jinja_evaluate(j, scope, node->a);
        return jinja_truth(v) ? jinja_evaluate(j, scope, node->b) : v;
    case NODE_OR:
        v = jinja_evaluate(j, scope, node->a);
        return jinja_truth(v) ? v : jinja_evaluate(j, scope, node->b);
    case NODE_COMPARE:
        return evaluate_comparison(j, scope, node);
    case NODE_CONDITION:
        if (jinja_truth(jinja_evaluate(j, scope, node->a)))
            return jinja_evaluate(j, scope, node->b);
        return node->c ? jinja_evaluate(j, scope, node->c) : jinja_undefined(JINJA_MISSING, &no_else);
    default: /* a slice inside a tuple subscript, which no type of ours has */
        jinja_fail(j, ERR_INVALID, "a slice can't stand here");
    }
}

jinja_value jinja_evaluate(jinja *j, jinja_scope *scope, const jinja_node *expression)
{
    jinja_enter(j);
    jinja_value v = evaluate_node(j, scope, expression);
    jinja_leave(j);
    return v;
}
