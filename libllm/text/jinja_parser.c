/* The expression half of the parser, and what both halves share. jinja2/parser.py is the reference: same grammar, same
 * precedence, down to a test's bare argument (`x is divisibleby 3`). */
#include "text/jinja_parser.h"

#include "text/jinja_eval.h"

/* ---- tokens ---- */

jinja_token *jinja_peek(jinja_parser *p)
{
    return &p->lexed.tokens[p->at];
}

static jinja_token *take(jinja_parser *p)
{
    jinja_token *token = jinja_peek(p);
    if (token->kind != TOKEN_EOF)
        p->at++;
    return token;
}

void jinja_expected(jinja_parser *p, const char *what)
{
    const jinja_token *found = jinja_peek(p);
    size_t             size  = 1;
    switch (found->kind) {
    case TOKEN_EOF:
        jinja_fail_at(&p->lexed, found->line, found->at, "expected %s, found the end of the template", what);
    case TOKEN_BLOCK_END:
    case TOKEN_VARIABLE_END:
        jinja_fail_at(&p->lexed, found->line, found->at, "expected %s, found the end of the tag", what);
    case TOKEN_STRING:
        jinja_fail_at(&p->lexed, found->line, found->at, "expected %s, found a string", what);
    case TOKEN_NUMBER:
        jinja_fail_at(&p->lexed, found->line, found->at, "expected %s, found a number", what);
    case TOKEN_NAME:
        size = found->text.size;
        break;
    default:
        size = found->kind < ' ' ? 2 : 1;
    }
    jinja_fail_at(&p->lexed, found->line, found->at, "expected %s, found '%.*s'", what, (int)size, found->at);
}

static bool is_name(const jinja_token *token, const char *keyword)
{
    return token->kind == TOKEN_NAME && span_is(token->text, keyword);
}

bool jinja_at_name(const jinja_parser *p, const char *keyword)
{
    return is_name(&p->lexed.tokens[p->at], keyword);
}

bool jinja_skip_name(jinja_parser *p, const char *keyword)
{
    if (!jinja_at_name(p, keyword))
        return false;
    p->at++;
    return true;
}

bool jinja_skip(jinja_parser *p, uint8_t token_kind)
{
    if (jinja_peek(p)->kind != token_kind)
        return false;
    (void)take(p);
    return true;
}

jinja_token *jinja_expect(jinja_parser *p, uint8_t token_kind, const char *what)
{
    if (jinja_peek(p)->kind != token_kind)
        jinja_expected(p, what);
    return take(p);
}

uint32_t jinja_name_number(jinja_parser *p, span name)
{
    uint32_t hash = 2166136261u; /* FNV-1a; the table is small and its size fixed, so collisions can't hurt */
    for (size_t i = 0; i < name.size; i++)
        hash = (hash ^ (unsigned char)name.data[i]) * 16777619u;
    for (uint32_t slot = hash % COUNT(p->name_slots);; slot = (slot + 1) % COUNT(p->name_slots)) {
        uint32_t number = p->name_slots[slot];
        if (number == 0) {
            if (p->n_names == JINJA_NAMES_MAX)
                jinja_fail_at(&p->lexed, jinja_peek(p)->line, jinja_peek(p)->at, "more than %d names", JINJA_NAMES_MAX);
            p->names[p->n_names] = name;
            p->name_slots[slot]  = (uint16_t)++p->n_names;
            return p->n_names - 1;
        }
        if (span_equal(p->names[number - 1], name))
            return number - 1;
    }
}

void jinja_nest(jinja_parser *p)
{
    const jinja_token *at = jinja_peek(p);
    if (++p->depth > CHAT_TEMPLATE_DEPTH_MAX)
        jinja_fail_at(&p->lexed, at->line, at->at, "nested more than %d levels deep", CHAT_TEMPLATE_DEPTH_MAX);
}

/* ---- nodes ---- */

jinja_node *jinja_node_new(jinja_parser *p, jinja_node_kind kind)
{
    jinja_node *node = jinja_take(p->j, 1, sizeof *node);
    node->kind       = (uint8_t)kind;
    node->line       = jinja_peek(p)->line;
    return node;
}

void jinja_node_add(jinja_parser *p, jinja_node *list, jinja_node ***tail, jinja_node *item)
{
    (void)p;
    **tail = item;
    *tail  = &item->next;
    list->n_items++;
}

static jinja_node *constant(jinja_parser *p, jinja_value value)
{
    jinja_node *node = jinja_node_new(p, NODE_CONSTANT);
    node->value      = value;
    return node;
}

static jinja_node *binary(jinja_parser *p, jinja_node_kind kind, uint8_t flag, jinja_node *a, jinja_node *b)
{
    jinja_node *node = jinja_node_new(p, kind);
    node->flag       = flag;
    node->a          = a;
    node->b          = b;
    return node;
}

/* Adjacent string literals are one, as in Python. */
static jinja_node *parse_strings(jinja_parser *p)
{
    jinja_builder text;
    jinja_node   *node = jinja_node_new(p, NODE_CONSTANT);
    jinja_builder_start(&text, p->j);
    while (jinja_peek(p)->kind == TOKEN_STRING)
        jinja_builder_add(&text, take(p)->text, false);
    node->value = jinja_of(jinja_builder_finish(&text));
    (void)jinja_string_n_chars(p->j, node->value.string); /* counted now: renders share the node and may not write */
    return node;
}

static jinja_node *parse_name(jinja_parser *p)
{
    jinja_node  *node  = jinja_node_new(p, NODE_NAME);
    jinja_token *token = take(p);
    if (span_is(token->text, "true") || span_is(token->text, "True"))
        return constant(p, jinja_bool(true));
    if (span_is(token->text, "false") || span_is(token->text, "False"))
        return constant(p, jinja_bool(false));
    if (span_is(token->text, "none") || span_is(token->text, "None"))
        return constant(p, jinja_none());
    node->name = jinja_name_number(p, token->text);
    node->text = token->text;
    if (node->name >= JINJA_NAME_CALLER && node->name <= JINJA_NAME_VARARGS)
        p->macro_uses |= (uint8_t)(1 << (node->name - JINJA_NAME_CALLER));
    return node;
}

static jinja_node *parse_list(jinja_parser *p)
{
    jinja_node  *list = jinja_node_new(p, NODE_LIST);
    jinja_node **tail = &list->items;
    jinja_expect(p, '[', "'['");
    while (jinja_peek(p)->kind != ']') {
        jinja_node_add(p, list, &tail, jinja_parse_expression(p, true));
        if (jinja_peek(p)->kind != ']')
            jinja_expect(p, ',', "',' or ']'");
    }
    jinja_expect(p, ']', "']'");
    return list;
}

static jinja_node *parse_dict(jinja_parser *p)
{
    jinja_node  *dict = jinja_node_new(p, NODE_DICT);
    jinja_node **tail = &dict->items;
    jinja_expect(p, '{', "'{'");
    while (jinja_peek(p)->kind != '}') {
        jinja_node_add(p, dict, &tail, jinja_parse_expression(p, true));
        jinja_expect(p, ':', "':'");
        jinja_node_add(p, dict, &tail, jinja_parse_expression(p, true));
        if (jinja_peek(p)->kind != '}')
            jinja_expect(p, ',', "',' or '}'");
    }
    jinja_expect(p, '}', "'}'");
    return dict;
}

jinja_node *jinja_parse_primary(jinja_parser *p)
{
    jinja_node *node;
    switch (jinja_peek(p)->kind) {
    case TOKEN_NAME:
        return parse_name(p);
    case TOKEN_STRING:
        return parse_strings(p);
    case TOKEN_NUMBER:
        return constant(p, take(p)->value);
    case '[':
        return parse_list(p);
    case '{':
        return parse_dict(p);
    case '(':
        (void)take(p);
        if (jinja_peek(p)->kind == ')')
            node = jinja_node_new(p, NODE_TUPLE);
        else
            node = jinja_parse_tuple(p, true, NULL);
        jinja_expect(p, ')', "')'");
        return node;
    default:
        jinja_expected(p, "an expression");
    }
}

jinja_node *jinja_parse_tuple(jinja_parser *p, bool with_condition, const char *end_name)
{
    jinja_node  *tuple = jinja_node_new(p, NODE_TUPLE);
    jinja_node **tail  = &tuple->items;
    jinja_node  *first = jinja_parse_expression(p, with_condition);
    if (jinja_peek(p)->kind != ',')
        return first;
    jinja_node_add(p, tuple, &tail, first);
    while (jinja_skip(p, ',')) {
        uint8_t kind = jinja_peek(p)->kind;
        if (kind == TOKEN_VARIABLE_END || kind == TOKEN_BLOCK_END || kind == ')' ||
            (end_name && jinja_at_name(p, end_name)))
            break;
        jinja_node_add(p, tuple, &tail, jinja_parse_expression(p, with_condition));
    }
    return tuple;
}

/* ---- postfix: attributes, items, calls, filters, tests ---- */

static jinja_node *parse_slice_part(jinja_parser *p)
{
    uint8_t kind = jinja_peek(p)->kind;
    return kind == ':' || kind == ']' || kind == ',' ? NULL : jinja_parse_expression(p, true);
}

static jinja_node *parse_subscript(jinja_parser *p)
{
    jinja_node *first = parse_slice_part(p);
    if (jinja_peek(p)->kind != ':') {
        if (!first)
            jinja_expected(p, "a subscript");
        return first;
    }
    jinja_node *slice = jinja_node_new(p, NODE_SLICE);
    slice->a          = first;
    (void)take(p);
    slice->b = parse_slice_part(p);
    if (jinja_skip(p, ':'))
        slice->c = parse_slice_part(p);
    return slice;
}

static jinja_node *parse_brackets(jinja_parser *p, jinja_node *operand)
{
    jinja_expect(p, '[', "'['");
    jinja_node *index = parse_subscript(p);
    if (jinja_peek(p)->kind == ',') {
        jinja_node  *tuple = jinja_node_new(p, NODE_TUPLE);
        jinja_node **tail  = &tuple->items;
        jinja_node_add(p, tuple, &tail, index);
        while (jinja_skip(p, ','))
            jinja_node_add(p, tuple, &tail, parse_subscript(p));
        index = tuple;
    }
    jinja_expect(p, ']', "']'");
    return binary(p, NODE_ITEM, 0, operand, index);
}

static jinja_node *parse_dot(jinja_parser *p, jinja_node *operand)
{
    jinja_expect(p, '.', "'.'");
    jinja_token *token = jinja_peek(p);
    if (token->kind == TOKEN_NUMBER && token->value.kind == JINJA_INT)
        return binary(p, NODE_ITEM, 0, operand, constant(p, take(p)->value));
    jinja_node *node = binary(p, NODE_ATTRIBUTE, 0, operand, NULL);
    node->text       = jinja_expect(p, TOKEN_NAME, "an attribute's name")->text;
    return node;
}

static jinja_node *parse_argument(jinja_parser *p, uint8_t *last_kind)
{
    jinja_node *argument = jinja_node_new(p, NODE_ARGUMENT);
    if (jinja_skip(p, '*'))
        argument->flag = ARGUMENT_STAR;
    else if (jinja_skip(p, TOKEN_POWER))
        argument->flag = ARGUMENT_STAR_STAR;
    else if (jinja_peek(p)->kind == TOKEN_NAME && jinja_peek(p)[1].kind == '=') {
        argument->flag = ARGUMENT_KEYWORD;
        argument->text = take(p)->text;
        (void)take(p);
    }
    bool in_order = argument->flag == ARGUMENT_POSITION ? *last_kind == ARGUMENT_POSITION
                    : argument->flag == ARGUMENT_STAR   ? *last_kind < ARGUMENT_STAR
                                                        : *last_kind < ARGUMENT_STAR_STAR;
    if (!in_order)
        jinja_expected(p, "arguments in the order f(a, name=b, *c, **d)");
    *last_kind  = argument->flag;
    argument->a = jinja_parse_expression(p, true);
    return argument;
}

/* (a, b, name=c) into node->items. */
static void parse_arguments(jinja_parser *p, jinja_node *node)
{
    jinja_node **tail      = &node->items;
    uint8_t      last_kind = ARGUMENT_POSITION;
    jinja_expect(p, '(', "'('");
    while (jinja_peek(p)->kind != ')') {
        jinja_node_add(p, node, &tail, parse_argument(p, &last_kind));
        if (jinja_peek(p)->kind != ')')
            jinja_expect(p, ',', "',' or ')'");
    }
    jinja_expect(p, ')', "')'");
}

static jinja_node *parse_call(jinja_parser *p, jinja_node *callee)
{
    jinja_node *call = binary(p, NODE_CALL, 0, callee, NULL);
    parse_arguments(p, call);
    return call;
}

static jinja_node *parse_postfix(jinja_parser *p, jinja_node *node)
{
    for (;;) {
        switch (jinja_peek(p)->kind) {
        case '.':
            node = parse_dot(p, node);
            break;
        case '[':
            node = parse_brackets(p, node);
            break;
        case '(':
            node = parse_call(p, node);
            break;
        default:
            return node;
        }
    }
}

/* The name of a filter or a test, dots and all. */
static span parse_dotted_name(jinja_parser *p, const char *what)
{
    span name = jinja_expect(p, TOKEN_NAME, what)->text;
    while (jinja_skip(p, '.')) {
        span part = jinja_expect(p, TOKEN_NAME, what)->text;
        name.size = (size_t)(part.data + part.size - name.data);
    }
    return name;
}

/* Jinja refuses an unknown filter or test at once, but not in what may never be evaluated: behind an if. */
static void note_unknown(jinja_parser *p, const jinja_node *node)
{
    if (!node->builtin && !p->soft && !p->unknown)
        p->unknown = node;
}

void jinja_refuse_unknown(const jinja_parser *p)
{
    const jinja_node *node = p->unknown;
    if (node)
        jinja_fail_at(&p->lexed, node->line, node->text.data, "there is no %s named '%.*s'",
                      node->kind == NODE_FILTER ? "filter" : "test", SPAN_ARG(node->text));
}

jinja_node *jinja_parse_filters(jinja_parser *p, jinja_node *operand, bool start)
{
    for (; start || jinja_peek(p)->kind == '|'; start = false) {
        if (!start)
            (void)take(p);
        jinja_node *filter = binary(p, NODE_FILTER, 0, operand, NULL);
        filter->text       = parse_dotted_name(p, "a filter's name");
        filter->builtin    = jinja_find_filter(filter->text);
        note_unknown(p, filter);
        if (jinja_peek(p)->kind == '(')
            parse_arguments(p, filter);
        operand = filter;
    }
    return operand;
}

static bool starts_test_argument(const jinja_parser *p)
{
    switch (p->lexed.tokens[p->at].kind) {
    case TOKEN_NAME:
        return !jinja_at_name(p, "else") && !jinja_at_name(p, "or") && !jinja_at_name(p, "and");
    case TOKEN_STRING:
    case TOKEN_NUMBER:
    case '[':
    case '{':
        return true;
    default:
        return false;
    }
}

static jinja_node *parse_test(jinja_parser *p, jinja_node *operand)
{
    (void)take(p);
    bool        negated = jinja_skip_name(p, "not");
    jinja_node *test    = binary(p, NODE_TEST, 0, operand, NULL);
    test->text          = parse_dotted_name(p, "a test's name");
    test->builtin       = jinja_find_test(test->text);
    note_unknown(p, test);
    if (jinja_peek(p)->kind == '(')
        parse_arguments(p, test);
    else if (starts_test_argument(p)) {
        if (jinja_at_name(p, "is"))
            jinja_expected(p, "the end of the test (tests can't be chained)");
        jinja_node  *argument = jinja_node_new(p, NODE_ARGUMENT);
        jinja_node **tail     = &test->items;
        argument->a           = parse_postfix(p, jinja_parse_primary(p));
        jinja_node_add(p, test, &tail, argument);
    }
    return negated ? binary(p, NODE_NOT, 0, test, NULL) : test;
}

static jinja_node *parse_filters_and_tests(jinja_parser *p, jinja_node *node)
{
    for (;;) {
        if (jinja_peek(p)->kind == '|')
            node = jinja_parse_filters(p, node, false);
        else if (jinja_at_name(p, "is"))
            node = parse_test(p, node);
        else if (jinja_peek(p)->kind == '(')
            node = parse_call(p, node);
        else
            return node;
    }
}

/* ---- operators, tightest first ---- */

static jinja_node *parse_unary(jinja_parser *p, bool with_filters)
{
    jinja_node *node;
    uint8_t     kind = jinja_peek(p)->kind;
    if (kind == '-' || kind == '+') {
        jinja_nest(p);
        (void)take(p);
        node = binary(p, kind == '-' ? NODE_NEGATE : NODE_PLUS, 0, parse_unary(p, false), NULL);
        p->depth--;
    } else
        node = jinja_parse_primary(p);
    node = parse_postfix(p, node);
    return with_filters ? parse_filters_and_tests(p, node) : node;
}

static jinja_node *parse_power(jinja_parser *p)
{
    jinja_node *left = parse_unary(p, true);
    while (jinja_skip(p, TOKEN_POWER))
        left = binary(p, NODE_BINARY, TOKEN_POWER, left, parse_unary(p, true));
    return left;
}

static jinja_node *parse_product(jinja_parser *p)
{
    jinja_node *left = parse_power(p);
    for (;;) {
        uint8_t kind = jinja_peek(p)->kind;
        if (kind != '*' && kind != '/' && kind != TOKEN_FLOOR_DIVIDE && kind != '%')
            return left;
        (void)take(p);
        left = binary(p, NODE_BINARY, kind, left, parse_power(p));
    }
}

static jinja_node *parse_concat(jinja_parser *p)
{
    jinja_node *first = parse_product(p);
    if (jinja_peek(p)->kind != '~')
        return first;
    jinja_node  *concat = jinja_node_new(p, NODE_CONCAT);
    jinja_node **tail   = &concat->items;
    jinja_node_add(p, concat, &tail, first);
    while (jinja_skip(p, '~'))
        jinja_node_add(p, concat, &tail, parse_product(p));
    return concat;
}

static jinja_node *parse_sum(jinja_parser *p)
{
    jinja_node *left = parse_concat(p);
    for (;;) {
        uint8_t kind = jinja_peek(p)->kind;
        if (kind != '+' && kind != '-')
            return left;
        (void)take(p);
        left = binary(p, NODE_BINARY, kind, left, parse_concat(p));
    }
}

/* The comparison operator here, 0 when there is none; consumes it. */
static uint8_t take_comparison(jinja_parser *p)
{
    jinja_token *token = jinja_peek(p);
    uint8_t      kind  = token->kind;
    if (kind == TOKEN_EQUAL || kind == TOKEN_NOT_EQUAL || kind == TOKEN_AT_LEAST || kind == TOKEN_AT_MOST ||
        kind == '<' || kind == '>') {
        (void)take(p);
        return kind;
    }
    if (jinja_skip_name(p, "in"))
        return OPERAND_IN;
    if (is_name(token, "not") && is_name(token + 1, "in")) {
        p->at += 2;
        return OPERAND_NOT_IN;
    }
    return 0;
}

static jinja_node *parse_comparison(jinja_parser *p)
{
    jinja_node  *first = parse_sum(p), *compare = NULL;
    jinja_node **tail = NULL;
    for (uint8_t kind; (kind = take_comparison(p)) != 0;) {
        if (!compare) {
            compare = binary(p, NODE_COMPARE, 0, first, NULL);
            tail    = &compare->items;
        }
        jinja_node_add(p, compare, &tail, binary(p, NODE_OPERAND, kind, parse_sum(p), NULL));
    }
    return compare ? compare : first;
}

static jinja_node *parse_not(jinja_parser *p)
{
    if (!jinja_skip_name(p, "not"))
        return parse_comparison(p);
    jinja_nest(p);
    jinja_node *node = binary(p, NODE_NOT, 0, parse_not(p), NULL);
    p->depth--;
    return node;
}

static jinja_node *parse_and(jinja_parser *p)
{
    jinja_node *left = parse_not(p);
    while (jinja_skip_name(p, "and"))
        left = binary(p, NODE_AND, 0, left, parse_not(p));
    return left;
}

static jinja_node *parse_or(jinja_parser *p)
{
    jinja_node *left = parse_and(p);
    while (jinja_skip_name(p, "or"))
        left = binary(p, NODE_OR, 0, left, parse_and(p));
    return left;
}

jinja_node *jinja_parse_expression(jinja_parser *p, bool with_condition)
{
    const jinja_node *unknown = p->unknown;
    jinja_nest(p);
    jinja_node *node = parse_or(p);
    while (with_condition && jinja_at_name(p, "if")) {
        (void)take(p);
        jinja_node *condition = jinja_node_new(p, NODE_CONDITION);
        condition->b          = node;
        condition->a          = parse_or(p);
        if (jinja_skip_name(p, "else"))
            condition->c = jinja_parse_expression(p, true);
        node       = condition;
        p->unknown = unknown;
    }
    p->depth--;
    return node;
}
