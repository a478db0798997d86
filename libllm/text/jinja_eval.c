/* Runs a template's statements: scopes, loops, macros and blocks. */
#include "text/jinja_eval.h"

/* ---- scopes ---- */

jinja_scope *jinja_scope_new(jinja *j, jinja_scope *parent)
{
    jinja_scope *scope = jinja_take(j, 1, sizeof *scope);
    scope->parent      = parent;
    return scope;
}

void jinja_scope_set(jinja *j, jinja_scope *scope, uint32_t name, jinja_value value)
{
    if (!scope) {
        j->globals[name] = value;
        return;
    }
    jinja_binding *binding = scope->bindings;
    while (binding && binding->name != name)
        binding = binding->next;
    if (!binding) {
        binding         = jinja_take(j, 1, sizeof *binding);
        binding->name   = name;
        binding->next   = scope->bindings;
        scope->bindings = binding;
    }
    binding->value = value;
}

static jinja_scope *next_turn(jinja *j, jinja_scope *scope)
{
    if (scope->captured)
        return jinja_scope_new(j, scope->parent);
    for (jinja_binding *b = scope->bindings; b; b = b->next)
        b->value = (jinja_value){0};
    return scope;
}

static jinja_value make_macro(jinja *j, jinja_scope *scope, const jinja_node *node)
{
    jinja_value v     = jinja_callable_new(j, NULL, jinja_none());
    v.callable->macro = node;
    v.callable->scope = scope;
    for (; scope; scope = scope->parent)
        scope->captured = true;
    return v;
}

/* ---- assignment ---- */

static void assign_namespace(jinja *j, jinja_scope *scope, const jinja_node *target, jinja_value value)
{
    jinja_node  name = {.kind = NODE_NAME, .name = target->name, .line = target->line};
    jinja_value ns   = jinja_evaluate(j, scope, &name);
    if (ns.kind != JINJA_NAMESPACE)
        jinja_fail(j, ERR_INVALID, "cannot assign attribute on non-namespace object '%.*s'",
                   SPAN_ARG(j->program->names[target->name]));
    jinja_value *found = jinja_dict_find_text(ns.dict, target->text);
    jinja_charge_items(j, ns.dict->n);
    if (found)
        *found = value;
    else
        jinja_dict_set(j, ns.dict, jinja_text_value(j, target->text, false), value);
}

static void assign(jinja *j, jinja_scope *scope, const jinja_node *target, jinja_value value)
{
    if (target->kind == NODE_NAME) {
        jinja_scope_set(j, scope, target->name, value);
        return;
    }
    if (target->kind == NODE_NAMESPACE_TARGET) {
        assign_namespace(j, scope, target, value);
        return;
    }
    jinja_sequence *parts = jinja_iterate(j, value);
    if (parts->n != target->n_items)
        jinja_fail(j, ERR_INVALID, "%zu values can't be assigned to %u names", parts->n, target->n_items);
    size_t i = 0;
    for (const jinja_node *part = target->items; part; part = part->next)
        assign(j, scope, part, jinja_item(parts, i++));
}

/* ---- capturing output ---- */

static jinja_flow capture(jinja *j, jinja_scope *scope, const jinja_node *body, jinja_value *text)
{
    jinja_builder  out;
    jinja_builder *outer = j->out;
    jinja_builder_start(&out, j);
    j->out          = &out;
    jinja_flow flow = jinja_execute(j, scope, body);
    j->out          = outer;
    *text           = jinja_of(jinja_builder_finish(&out));
    return flow;
}

/* ---- loops ---- */

void jinja_loop_fill(jinja *j, jinja_loop *loop, size_t n)
{
    if (loop->items == loop->source)
        return;
    jinja_scope *scope = NULL;
    while (loop->items->n < n && loop->source_next < loop->source->n) {
        jinja_value item = jinja_item(loop->source, loop->source_next++);
        scope            = scope ? next_turn(j, scope) : jinja_scope_new(j, loop->scope);
        assign(j, scope, loop->node->a, item);
        if (jinja_truth(jinja_evaluate(j, scope, loop->node->c)))
            jinja_append(j, loop->items, &loop->items_capacity, item);
    }
}

static jinja_flow run_loop(jinja *j, jinja_scope *scope, const jinja_node *node, jinja_value iterable, uint32_t depth0)
{
    jinja_loop *loop = jinja_take(j, 1, sizeof *loop);
    *loop       = (jinja_loop){.source = jinja_iterate(j, iterable), .node = node, .scope = scope, .depth0 = depth0};
    loop->items = node->c ? jinja_take(j, 1, sizeof *loop->items) : loop->source;
    jinja_scope *own  = jinja_scope_new(j, scope);
    jinja_flow   flow = FLOW_NEXT;
    for (; flow != FLOW_BREAK; loop->index0++) {
        jinja_loop_fill(j, loop, loop->index0 + 1);
        if (loop->index0 >= loop->items->n)
            break;
        own = next_turn(j, own);
        jinja_scope_set(j, own, JINJA_NAME_LOOP, (jinja_value){.kind = JINJA_LOOP, .loop = loop});
        assign(j, own, node->a, jinja_item(loop->items, loop->index0));
        flow = jinja_execute(j, own, node->body);
    }
    /* Python's for-else runs after a break, Jinja's when there was no item. */
    if (loop->index0 == 0 && node->other)
        return jinja_execute(j, jinja_scope_new(j, scope), node->other);
    return FLOW_NEXT;
}

jinja_value jinja_call_loop(jinja *j, const jinja_loop *loop, jinja_value iterable)
{
    if (!loop->node->flag)
        jinja_fail(j, ERR_INVALID, "the loop must have the 'recursive' marker to be called");
    jinja_builder  out;
    jinja_builder *outer = j->out;
    jinja_builder_start(&out, j);
    j->out = &out;
    (void)run_loop(j, loop->scope, loop->node, iterable, loop->depth0 + 1);
    j->out = outer;
    return jinja_of(jinja_builder_finish(&out));
}

/* ---- macros ---- */

static const jinja_keyword *find_keyword(const jinja_arguments *arguments, span name)
{
    for (size_t i = 0; i < arguments->n_keywords; i++)
        if (span_equal(arguments->keywords[i].name, name))
            return &arguments->keywords[i];
    return NULL;
}

static bool is_parameter(const jinja_node *macro, span name)
{
    for (const jinja_node *p = macro->items; p; p = p->next)
        if (span_equal(p->text, name))
            return true;
    return false;
}

/* Binds what the parameters did not take: caller, kwargs, varargs, where the macro's body mentions them. */
static void bind_rest(jinja *j, jinja_scope *scope, const jinja_node *macro, const jinja_arguments *arguments)
{
    jinja_value kwargs = jinja_dict_new(j, JINJA_DICT, arguments->n_keywords);
    for (size_t i = 0; i < arguments->n_keywords; i++) {
        const jinja_keyword *k = &arguments->keywords[i];
        if (is_parameter(macro, k->name))
            continue;
        if (span_is(k->name, "caller") && (macro->flag & MACRO_USES_CALLER))
            jinja_scope_set(j, scope, JINJA_NAME_CALLER, k->value);
        else if (macro->flag & MACRO_USES_KWARGS)
            jinja_dict_set(j, kwargs.dict, jinja_text_value(j, k->name, false), k->value);
        else
            jinja_fail(j, ERR_INVALID, "macro '%.*s' takes no keyword argument '%.*s'", SPAN_ARG(macro->text),
                       SPAN_ARG(k->name));
    }
    if ((macro->flag & MACRO_USES_CALLER) && !find_keyword(arguments, SPAN("caller")) &&
        !is_parameter(macro, SPAN("caller")))
        jinja_scope_set(j, scope, JINJA_NAME_CALLER,
                        jinja_undefined(JINJA_MISSING, &j->program->names[JINJA_NAME_CALLER]));
    if ((macro->flag & MACRO_USES_KWARGS) && !is_parameter(macro, SPAN("kwargs")))
        jinja_scope_set(j, scope, JINJA_NAME_KWARGS, kwargs);
    size_t n_rest = arguments->n > macro->n_items ? arguments->n - macro->n_items : 0;
    if ((macro->flag & MACRO_USES_VARARGS) && !is_parameter(macro, SPAN("varargs"))) {
        jinja_value rest = jinja_sequence_new(j, JINJA_TUPLE, n_rest);
        for (size_t i = 0; i < n_rest; i++)
            rest.sequence->items[i] = arguments->values[macro->n_items + i];
        jinja_scope_set(j, scope, JINJA_NAME_VARARGS, rest);
    } else if (n_rest > 0)
        jinja_fail(j, ERR_INVALID, "macro '%.*s' takes not more than %u argument(s)", SPAN_ARG(macro->text),
                   macro->n_items);
}

jinja_value jinja_call_macro(jinja *j, const jinja_callable *callable, const jinja_arguments *arguments)
{
    const jinja_node *macro = callable->macro;
    jinja_scope      *scope = jinja_scope_new(j, callable->scope);
    uint32_t          line  = j->line;
    size_t            i     = 0;
    jinja_enter(j);
    bind_rest(j, scope, macro, arguments);
    for (const jinja_node *p = macro->items; p; p = p->next, i++) {
        const jinja_keyword *k = find_keyword(arguments, p->text);
        if (i < arguments->n && k)
            jinja_fail(j, ERR_INVALID, "macro '%.*s' got two values for '%.*s'", SPAN_ARG(macro->text),
                       SPAN_ARG(p->text));
        jinja_value value = i < arguments->n ? arguments->values[i]
                            : k              ? k->value
                            : p->a           ? jinja_evaluate(j, scope, p->a)
                                             : jinja_undefined(JINJA_MISSING, &p->text);
        jinja_scope_set(j, scope, p->name, value);
    }
    jinja_value text;
    (void)capture(j, scope, macro->body, &text);
    jinja_leave(j);
    j->line = line;
    return text;
}

static void execute_call_block(jinja *j, jinja_scope *scope, const jinja_node *node)
{
    jinja_value     callee                     = jinja_evaluate(j, scope, node->a->a);
    jinja_arguments arguments                  = jinja_evaluate_arguments(j, scope, node->a, 1);
    arguments.keywords[arguments.n_keywords++] = (jinja_keyword){SPAN("caller"), make_macro(j, scope, node)};
    jinja_builder_add_string(j->out, jinja_str(j, jinja_call_value(j, callee, &arguments)));
}

/* ---- statements ---- */

static jinja_flow execute_if(jinja *j, jinja_scope *scope, const jinja_node *node)
{
    for (const jinja_node *branch = node->items; branch; branch = branch->next)
        if (!branch->a || jinja_truth(jinja_evaluate(j, scope, branch->a)))
            return jinja_execute(j, scope, branch->body);
    return FLOW_NEXT;
}

static jinja_flow execute_with(jinja *j, jinja_scope *scope, const jinja_node *node)
{
    jinja_scope *own = jinja_scope_new(j, scope);
    for (const jinja_node *target = node->items; target; target = target->next->next)
        assign(j, own, target, jinja_evaluate(j, scope, target->next));
    return jinja_execute(j, own, node->body);
}

static void print(jinja *j, jinja_scope *scope, const jinja_node *node)
{
    jinja_value v = jinja_evaluate(j, scope, node->a);
    jinja_builder_add_string(j->out, jinja_str(j, v));
}

static jinja_flow execute_captured(jinja *j, jinja_scope *scope, const jinja_node *node)
{
    jinja_scope *own = jinja_scope_new(j, scope);
    jinja_value  text;
    jinja_flow   flow = capture(j, own, node->body, &text);
    if (flow != FLOW_NEXT) /* a break inside drops what was captured, as in Jinja */
        return flow;
    if (node->kind == NODE_FILTER_BLOCK)
        jinja_builder_add_string(j->out, jinja_str(j, jinja_apply_filters(j, own, node->a, text)));
    else
        assign(j, scope, node->a, node->b ? jinja_apply_filters(j, own, node->b, text) : text);
    return FLOW_NEXT;
}

static jinja_flow execute_statement(jinja *j, jinja_scope *scope, const jinja_node *node)
{
    j->line = node->line;
    switch ((jinja_node_kind)node->kind) {
    case NODE_DATA:
        jinja_builder_add_string(j->out, node->value.string);
        return FLOW_NEXT;
    case NODE_PRINT:
        print(j, scope, node);
        return FLOW_NEXT;
    case NODE_BODY:
        return jinja_execute(j, scope, node);
    case NODE_FOR:
        return run_loop(j, scope, node, jinja_evaluate(j, scope, node->b), 0);
    case NODE_IF:
        return execute_if(j, scope, node);
    case NODE_SET:
        assign(j, scope, node->a, jinja_evaluate(j, scope, node->b));
        return FLOW_NEXT;
    case NODE_SET_BLOCK:
    case NODE_FILTER_BLOCK:
        return execute_captured(j, scope, node);
    case NODE_MACRO:
        jinja_scope_set(j, scope, node->name, make_macro(j, scope, node));
        return FLOW_NEXT;
    case NODE_CALL_BLOCK:
        execute_call_block(j, scope, node);
        return FLOW_NEXT;
    case NODE_WITH:
        return execute_with(j, scope, node);
    case NODE_SCOPE:
        return jinja_execute(j, jinja_scope_new(j, scope), node->body);
    case NODE_BREAK:
        return FLOW_BREAK;
    default:
        return FLOW_CONTINUE; /* NODE_CONTINUE: the parser puts nothing else here */
    }
}

jinja_flow jinja_execute(jinja *j, jinja_scope *scope, const jinja_node *body)
{
    jinja_flow flow = FLOW_NEXT;
    jinja_enter(j);
    for (const jinja_node *node = body->items; node && flow == FLOW_NEXT; node = node->next) {
        jinja_charge_items(j, 0);
        flow = execute_statement(j, scope, node);
    }
    jinja_leave(j);
    return flow;
}

void jinja_run(jinja *j)
{
    (void)jinja_execute(j, NULL, j->program->body);
}
