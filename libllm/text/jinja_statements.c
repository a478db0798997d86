/* The statement half of the parser. */
#include "text/jinja_parser.h"

static void take_name(jinja_parser *p)
{
    p->at++; /* the tag's own name, which the caller has looked at */
}

static void end_tag(jinja_parser *p)
{
    jinja_expect(p, TOKEN_BLOCK_END, "the end of the tag");
}

/* From behind a tag's words: its end, then everything up to one of end_names, which is left as the current token. */
static jinja_node *parse_block(jinja_parser *p, const char *const *end_names)
{
    (void)jinja_skip(p, ':'); /* Jinja lets Python's colon stand here */
    end_tag(p);
    jinja_node *body = jinja_parse_body(p, end_names);
    if (jinja_peek(p)->kind == TOKEN_EOF)
        jinja_expected(p, end_names[0]);
    return body;
}

/* The same for a tag with a single end name, which is consumed. */
static jinja_node *parse_whole_block(jinja_parser *p, const char *end_name)
{
    jinja_node *body = parse_block(p, (const char *const[]){end_name, NULL});
    take_name(p);
    return body;
}

/* A block with variables of its own. Unknown filters in it are errors at once, as Jinja has it. */
static jinja_node *parse_scoped_block(jinja_parser *p, const char *end_name)
{
    bool soft        = p->soft;
    p->soft          = false;
    jinja_node *body = parse_whole_block(p, end_name);
    p->soft          = soft;
    return body;
}

/* ---- targets ---- */

static jinja_node *parse_target_name(jinja_parser *p, bool with_namespace)
{
    jinja_token *token = jinja_peek(p);
    if (jinja_skip(p, '(')) {
        jinja_node  *tuple = jinja_node_new(p, NODE_TUPLE);
        jinja_node **tail  = &tuple->items;
        jinja_nest(p);
        while (!jinja_skip(p, ')')) {
            jinja_node_add(p, tuple, &tail, parse_target_name(p, with_namespace));
            if (jinja_peek(p)->kind != ')')
                jinja_expect(p, ',', "',' or ')'");
        }
        p->depth--;
        return tuple;
    }
    jinja_node *target = jinja_parse_primary(p);
    if (target->kind != NODE_NAME)
        jinja_fail_at(&p->lexed, token->line, token->at, "expected the name of a variable to assign to");
    if (with_namespace && jinja_skip(p, '.')) {
        target->kind = NODE_NAMESPACE_TARGET;
        target->text = jinja_expect(p, TOKEN_NAME, "an attribute's name")->text;
    } else if (target->name == JINJA_NAME_LOOP && p->n_loops > 0)
        jinja_fail_at(&p->lexed, token->line, token->at, "'loop' can't be assigned to inside a for");
    return target;
}

static jinja_node *parse_target(jinja_parser *p, bool with_namespace)
{
    jinja_node *first = parse_target_name(p, with_namespace);
    if (jinja_peek(p)->kind != ',')
        return first;
    jinja_node  *tuple = jinja_node_new(p, NODE_TUPLE);
    jinja_node **tail  = &tuple->items;
    jinja_node_add(p, tuple, &tail, first);
    while (jinja_skip(p, ',') && jinja_peek(p)->kind != TOKEN_BLOCK_END && !jinja_at_name(p, "in"))
        jinja_node_add(p, tuple, &tail, parse_target_name(p, with_namespace));
    return tuple;
}

/* ---- statements ---- */

static jinja_node *parse_for(jinja_parser *p)
{
    jinja_node *loop = jinja_node_new(p, NODE_FOR);
    p->n_loops++;
    loop->a = parse_target(p, false);
    if (!jinja_skip_name(p, "in"))
        jinja_expected(p, "'in'");
    loop->b = jinja_parse_tuple(p, false, "recursive");
    if (jinja_skip_name(p, "if"))
        loop->c = jinja_parse_expression(p, true);
    loop->flag = jinja_skip_name(p, "recursive");
    bool soft  = p->soft;
    p->soft    = false;
    loop->body = parse_block(p, (const char *const[]){"endfor", "else", NULL});
    p->n_loops--;
    if (jinja_skip_name(p, "else"))
        loop->other = parse_whole_block(p, "endfor");
    else
        take_name(p);
    p->soft = soft;
    return loop;
}

static jinja_node *parse_if(jinja_parser *p)
{
    static const char *const ends[] = {"endif", "elif", "else", NULL};
    jinja_node              *node   = jinja_node_new(p, NODE_IF);
    jinja_node             **tail   = &node->items;
    bool                     soft   = p->soft;
    p->soft                         = true;
    do {
        jinja_node *branch = jinja_node_new(p, NODE_BRANCH);
        branch->a          = jinja_parse_tuple(p, false, NULL);
        branch->body       = parse_block(p, ends);
        jinja_node_add(p, node, &tail, branch);
    } while (jinja_skip_name(p, "elif"));
    if (jinja_skip_name(p, "else")) {
        jinja_node *branch = jinja_node_new(p, NODE_BRANCH);
        branch->body       = parse_whole_block(p, "endif");
        jinja_node_add(p, node, &tail, branch);
    } else
        take_name(p);
    p->soft = soft;
    return node;
}

static jinja_node *parse_set(jinja_parser *p)
{
    jinja_node *set = jinja_node_new(p, NODE_SET);
    set->a          = parse_target(p, true);
    if (jinja_skip(p, '=')) {
        set->b = jinja_parse_tuple(p, true, NULL);
        return set;
    }
    set->kind = NODE_SET_BLOCK;
    set->b    = jinja_parse_filters(p, NULL, false);
    set->body = parse_scoped_block(p, "endset");
    return set;
}

static void parse_parameters(jinja_parser *p, jinja_node *macro)
{
    jinja_node **tail        = &macro->items;
    bool         has_default = false;
    jinja_expect(p, '(', "'('");
    while (!jinja_skip(p, ')')) {
        jinja_node  *parameter = jinja_node_new(p, NODE_PARAMETER);
        jinja_token *name      = jinja_expect(p, TOKEN_NAME, "a parameter's name");
        parameter->text        = name->text;
        parameter->name        = jinja_name_number(p, name->text);
        if (jinja_skip(p, '=')) {
            parameter->a = jinja_parse_expression(p, true);
            has_default  = true;
        } else if (has_default)
            jinja_expected(p, "a default, because the parameter before has one,");
        jinja_node_add(p, macro, &tail, parameter);
        if (jinja_peek(p)->kind != ')')
            jinja_expect(p, ',', "',' or ')'");
    }
}

/* The body of a macro or of a call block: a function of its own, so an outer loop can't be left from inside. */
static void parse_function_body(jinja_parser *p, jinja_node *function, const char *end_name)
{
    uint8_t  uses    = p->macro_uses;
    uint32_t n_loops = p->n_loops;
    p->macro_uses    = 0;
    p->n_loops       = 0;
    function->body   = parse_scoped_block(p, end_name);
    function->flag   = p->macro_uses;
    p->macro_uses |= uses; /* a macro inside another may use the outer one's caller */
    p->n_loops = n_loops;
}

static jinja_node *parse_macro(jinja_parser *p)
{
    jinja_node  *macro = jinja_node_new(p, NODE_MACRO);
    jinja_token *name  = jinja_expect(p, TOKEN_NAME, "the macro's name");
    macro->text        = name->text;
    macro->name        = jinja_name_number(p, name->text);
    parse_parameters(p, macro);
    parse_function_body(p, macro, "endmacro");
    return macro;
}

static jinja_node *parse_call_block(jinja_parser *p)
{
    jinja_node *block = jinja_node_new(p, NODE_CALL_BLOCK);
    if (jinja_peek(p)->kind == '(')
        parse_parameters(p, block);
    block->a = jinja_parse_expression(p, true);
    if (block->a->kind != NODE_CALL)
        jinja_expected(p, "a call of a macro before this");
    parse_function_body(p, block, "endcall");
    return block;
}

static jinja_node *parse_generation(jinja_parser *p)
{
    jinja_node *scope   = jinja_node_new(p, NODE_SCOPE);
    uint32_t    n_loops = p->n_loops;
    p->n_loops          = 0; /* transformers makes a call block of it */
    scope->body         = parse_scoped_block(p, "endgeneration");
    p->n_loops          = n_loops;
    return scope;
}

static jinja_node *parse_filter_block(jinja_parser *p)
{
    jinja_node *block = jinja_node_new(p, NODE_FILTER_BLOCK);
    block->a          = jinja_parse_filters(p, NULL, true);
    block->body       = parse_scoped_block(p, "endfilter");
    return block;
}

static jinja_node *parse_with(jinja_parser *p)
{
    jinja_node  *with = jinja_node_new(p, NODE_WITH);
    jinja_node **tail = &with->items;
    while (jinja_peek(p)->kind != TOKEN_BLOCK_END) {
        if (with->items)
            jinja_expect(p, ',', "',' or the end of the tag");
        jinja_node_add(p, with, &tail, parse_target_name(p, false));
        jinja_expect(p, '=', "'='");
        jinja_node_add(p, with, &tail, jinja_parse_expression(p, true));
    }
    with->body = parse_scoped_block(p, "endwith");
    return with;
}

static jinja_node *parse_print(jinja_parser *p)
{
    jinja_node  *body = jinja_node_new(p, NODE_BODY);
    jinja_node **tail = &body->items;
    while (jinja_peek(p)->kind != TOKEN_BLOCK_END) {
        if (body->items)
            jinja_expect(p, ',', "',' or the end of the tag");
        jinja_node *print = jinja_node_new(p, NODE_PRINT);
        print->a          = jinja_parse_expression(p, true);
        jinja_node_add(p, body, &tail, print);
    }
    return body;
}

static jinja_node *parse_loop_control(jinja_parser *p, jinja_node_kind kind)
{
    jinja_node *node = jinja_node_new(p, kind);
    if (p->n_loops == 0)
        jinja_expected(p, "break and continue only inside a for");
    return node;
}

static jinja_node *parse_break(jinja_parser *p)
{
    return parse_loop_control(p, NODE_BREAK);
}

static jinja_node *parse_continue(jinja_parser *p)
{
    return parse_loop_control(p, NODE_CONTINUE);
}

static jinja_node *parse_statement(jinja_parser *p)
{
    static const struct {
        const char *name;
        jinja_node *(*parse)(jinja_parser *);
    } statements[] = {
        {"for", parse_for},
        {"if", parse_if},
        {"set", parse_set},
        {"macro", parse_macro},
        {"call", parse_call_block},
        {"filter", parse_filter_block},
        {"with", parse_with},
        {"print", parse_print},
        {"generation", parse_generation},
        {"break", parse_break},
        {"continue", parse_continue},
        {"include", NULL},
        {"import", NULL},
        {"from", NULL},
        {"extends", NULL},
        {"block", NULL},
        {"autoescape", NULL},
        {"do", NULL},
        {"trans", NULL},
    };
    jinja_token *tag = jinja_expect(p, TOKEN_NAME, "a tag's name");
    for (size_t i = 0; i < COUNT(statements); i++)
        if (span_is(tag->text, statements[i].name)) {
            if (!statements[i].parse)
                jinja_fail_at(&p->lexed, tag->line, tag->at, "the tag '%s' is not supported in a chat template",
                              statements[i].name);
            return statements[i].parse(p);
        }
    jinja_fail_at(&p->lexed, tag->line, tag->at, "unknown tag '%.*s'", SPAN_ARG(tag->text));
}

static jinja_node *parse_data(jinja_parser *p)
{
    jinja_node *node = jinja_node_new(p, NODE_DATA);
    node->value      = jinja_text_value(p->j, jinja_expect(p, TOKEN_DATA, "text")->text, false);
    return node;
}

static jinja_node *parse_variable(jinja_parser *p)
{
    jinja_expect(p, TOKEN_VARIABLE_BEGIN, "'{{'");
    jinja_node *node = jinja_node_new(p, NODE_PRINT);
    node->a          = jinja_parse_tuple(p, true, NULL);
    jinja_expect(p, TOKEN_VARIABLE_END, "'}}'");
    return node;
}

static bool at_end_name(const jinja_parser *p, const char *const *end_names)
{
    for (; end_names && *end_names; end_names++)
        if (jinja_at_name(p, *end_names))
            return true;
    return false;
}

jinja_node *jinja_parse_body(jinja_parser *p, const char *const *end_names)
{
    jinja_node  *body = jinja_node_new(p, NODE_BODY);
    jinja_node **tail = &body->items;
    jinja_nest(p);
    for (;;) {
        uint8_t kind = jinja_peek(p)->kind;
        if (kind == TOKEN_EOF)
            break;
        if (kind == TOKEN_DATA)
            jinja_node_add(p, body, &tail, parse_data(p));
        else if (kind == TOKEN_VARIABLE_BEGIN)
            jinja_node_add(p, body, &tail, parse_variable(p));
        else {
            jinja_expect(p, TOKEN_BLOCK_BEGIN, "a tag");
            if (at_end_name(p, end_names))
                break;
            jinja_node_add(p, body, &tail, parse_statement(p));
            end_tag(p);
        }
        jinja_refuse_unknown(p);
    }
    p->depth--;
    return body;
}

jinja_program *jinja_parse(jinja *j, span source)
{
    static const char *const fixed[N_JINJA_FIXED_NAMES] = {"loop", "caller", "kwargs", "varargs"};
    jinja_parser            *p                          = jinja_take(j, 1, sizeof *p);
    p->j                                                = j;
    jinja_lex(j, source, &p->lexed);
    p->names = jinja_take(j, JINJA_NAMES_MAX, sizeof *p->names);
    for (size_t i = 0; i < COUNT(fixed); i++)
        (void)jinja_name_number(p, span_of(fixed[i]));
    jinja_program *program = jinja_take(j, 1, sizeof *program);
    program->body          = jinja_parse_body(p, NULL);
    program->names         = p->names;
    program->n_names       = p->n_names;
    return program;
}
