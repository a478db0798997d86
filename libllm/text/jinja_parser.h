/* From template text to syntax tree: the lexer, the nodes and the parser's entry. Private to the chat templates. */
#ifndef TROUPE_TEXT_JINJA_PARSER_H
#define TROUPE_TEXT_JINJA_PARSER_H

#include "text/jinja_value.h"

/* ---- tokens ---- */

typedef enum {
    TOKEN_EOF,
    TOKEN_DATA,
    TOKEN_VARIABLE_BEGIN,
    TOKEN_VARIABLE_END,
    TOKEN_BLOCK_BEGIN,
    TOKEN_BLOCK_END,
    TOKEN_NAME,
    TOKEN_STRING,
    TOKEN_NUMBER,
    TOKEN_OPERATOR_TEXT, /* below: the operator's own character, or one of these for two characters */
    TOKEN_POWER,
    TOKEN_FLOOR_DIVIDE,
    TOKEN_EQUAL,
    TOKEN_NOT_EQUAL,
    TOKEN_AT_LEAST,
    TOKEN_AT_MOST,
} jinja_token_kind;

typedef struct {
    uint8_t     kind; /* a jinja_token_kind, or an ASCII character from ' ' on */
    uint32_t    line;
    const char *at;
    span        text;  /* data, name, string (unescaped) */
    jinja_value value; /* number */
} jinja_token;

typedef struct {
    jinja       *j;
    span         source; /* newlines normalised, as the tokens refer to it */
    jinja_token *tokens; /* ends with TOKEN_EOF */
    size_t       n, capacity;
} jinja_tokens;

/* Splits the whole template. Fails with line and column. */
void jinja_lex(jinja *j, span source, jinja_tokens *tokens);

/* "chat template, line 3, column 14: <text>". */
_Noreturn void jinja_fail_at(const jinja_tokens *tokens, uint32_t line, const char *at, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* ---- nodes ---- */

typedef enum {
    /* expressions */
    NODE_CONSTANT,  /* value */
    NODE_NAME,      /* name */
    NODE_LIST,      /* items */
    NODE_TUPLE,     /* items */
    NODE_DICT,      /* items: key, value, key, value, ... */
    NODE_ATTRIBUTE, /* a.text */
    NODE_ITEM,      /* a[b]; b may be NODE_SLICE */
    NODE_SLICE,     /* a:b:c, each may be NULL */
    NODE_CALL,      /* a(items of NODE_ARGUMENT) */
    NODE_FILTER,    /* a|text(items); a is NULL in filter blocks */
    NODE_TEST,      /* a is text(items) */
    NODE_ARGUMENT,  /* a; flag is an argument_kind; text is the keyword */
    NODE_NOT,
    NODE_NEGATE,
    NODE_PLUS,
    NODE_BINARY, /* a flag b; flag is the operator's token */
    NODE_CONCAT, /* items */
    NODE_AND,
    NODE_OR,
    NODE_COMPARE,          /* a, then items of NODE_OPERAND */
    NODE_OPERAND,          /* flag a; flag is a token or an operand_kind */
    NODE_CONDITION,        /* b if a else c; c may be NULL */
    NODE_NAMESPACE_TARGET, /* name.text = */
    /* statements */
    NODE_BODY,         /* items */
    NODE_DATA,         /* value */
    NODE_PRINT,        /* a */
    NODE_FOR,          /* for a in b if c: body else other; flag: recursive */
    NODE_IF,           /* items of NODE_BRANCH */
    NODE_BRANCH,       /* a (NULL: else), body */
    NODE_SET,          /* a = b */
    NODE_SET_BLOCK,    /* a = body through filter b (may be NULL) */
    NODE_MACRO,        /* name(items of NODE_PARAMETER) body; flag: macro_uses */
    NODE_CALL_BLOCK,   /* call a with caller(items) body; flag: macro_uses */
    NODE_PARAMETER,    /* name, default a (may be NULL) */
    NODE_FILTER_BLOCK, /* filter a over body */
    NODE_WITH,         /* items: target, value, target, value, ...; body */
    NODE_SCOPE,        /* body with its own variables (generation) */
    NODE_BREAK,
    NODE_CONTINUE,
} jinja_node_kind;

typedef enum { ARGUMENT_POSITION, ARGUMENT_KEYWORD, ARGUMENT_STAR, ARGUMENT_STAR_STAR } argument_kind;
enum { OPERAND_IN = 1, OPERAND_NOT_IN = 2 };
enum { MACRO_USES_CALLER = 1, MACRO_USES_KWARGS = 2, MACRO_USES_VARARGS = 4 };

typedef struct jinja_node    jinja_node;
typedef struct jinja_builtin jinja_builtin; /* jinja_eval.h */

struct jinja_node {
    uint8_t              kind, flag;
    uint32_t             n_items;
    uint32_t             line;
    uint32_t             name; /* number of a variable's name */
    span                 text;
    jinja_value          value;
    const jinja_builtin *builtin; /* filter, test; NULL when unknown: an error once it is reached */
    jinja_node          *a, *b, *c;
    jinja_node          *items, *next;
    jinja_node          *body, *other;
};

enum { JINJA_NAMES_MAX = 2048 };

/* Names the evaluator itself looks up have fixed numbers. */
enum { JINJA_NAME_LOOP, JINJA_NAME_CALLER, JINJA_NAME_KWARGS, JINJA_NAME_VARARGS, N_JINJA_FIXED_NAMES };

struct jinja_program {
    jinja_node *body;
    span       *names;
    uint32_t    n_names;
};

/* Everything is in j->memory; `source` may go. */
jinja_program *jinja_parse(jinja *j, span source);

/* ---- between the parser's two halves: jinja_parser.c (expressions), jinja_statements.c ---- */

typedef struct {
    jinja            *j;
    jinja_tokens      lexed;
    size_t            at;
    uint32_t          depth, n_loops; /* nesting, and loops that a break could leave */
    uint8_t           macro_uses;
    bool              soft;    /* inside an if: an unknown filter is an error only once reached */
    const jinja_node *unknown; /* the first filter or test without a function that is an error */
    span             *names;
    uint32_t          n_names;
    uint16_t          name_slots[2 * JINJA_NAMES_MAX]; /* hash table: number + 1 */
} jinja_parser;

_Noreturn void jinja_expected(jinja_parser *p, const char *what); /* "expected <what>, found '...'" */

jinja_token *jinja_peek(jinja_parser *p);
bool         jinja_at_name(const jinja_parser *p, const char *keyword);
bool         jinja_skip_name(jinja_parser *p, const char *keyword);
bool         jinja_skip(jinja_parser *p, uint8_t token_kind);
jinja_token *jinja_expect(jinja_parser *p, uint8_t token_kind, const char *what);
uint32_t     jinja_name_number(jinja_parser *p, span name);
void         jinja_nest(jinja_parser *p); /* counts p->depth up; fails past CHAT_TEMPLATE_DEPTH_MAX */

jinja_node *jinja_node_new(jinja_parser *p, jinja_node_kind kind);
void        jinja_node_add(jinja_parser *p, jinja_node *list, jinja_node ***tail, jinja_node *item);

jinja_node *jinja_parse_expression(jinja_parser *p, bool with_condition);
jinja_node *jinja_parse_primary(jinja_parser *p);

/* One expression, or a tuple where there are commas. `end_name` (may be NULL) ends it too. */
jinja_node *jinja_parse_tuple(jinja_parser *p, bool with_condition, const char *end_name);

/* A chain of filters: `|a|b`; with `start`, the first has no bar. NULL when there is none. */
jinja_node *jinja_parse_filters(jinja_parser *p, jinja_node *operand, bool start);

void jinja_refuse_unknown(const jinja_parser *p);

jinja_node *jinja_parse_body(jinja_parser *p, const char *const *end_names);

#endif
