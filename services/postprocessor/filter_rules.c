/* Builds the automaton of Aho and Corasick (1975): a trie, then fallbacks breadth first. Children are lists, for most
 * nodes have one; the root, where most text is, has a table. */
#include "postprocessor/filter_rules.h"

#include <stdlib.h>
#include <utf8proc.h>

/* The Kelvin sign becomes k and both sigmas one. */
uint32_t filter_fold(uint32_t character)
{
    if (character < 0x80)
        return character >= 'A' && character <= 'Z' ? character + ('a' - 'A') : character;
    return (uint32_t)utf8proc_tolower(utf8proc_toupper((utf8proc_int32_t)character));
}

output_filter *filter_rules_new(error *err)
{
    output_filter *f = calloc(1, sizeof *f);
    if (f) {
        f->n_holders = 1;
        f->rules     = calloc(FILTER_RULES_MAX, sizeof *f->rules);
        f->nodes     = calloc(64, sizeof *f->nodes);
    }
    if (!f || !f->rules || !f->nodes) {
        error_set(err, ERR_NO_MEMORY, "no memory for the output filter");
        output_filter_release(&f);
        return NULL;
    }
    f->nodes_capacity   = 64;
    f->n_nodes          = 1;
    f->nodes[0].keyword = FILTER_NONE;
    return f;
}

output_filter *output_filter_hold(output_filter *f)
{
    f->n_holders++;
    return f;
}

void output_filter_release(output_filter **f)
{
    output_filter *old = *f;
    *f                 = NULL;
    if (!old || --old->n_holders > 0)
        return;
    free(old->rules);
    free(old->keywords);
    free(old->texts);
    free(old->nodes);
    free(old);
}

uint32_t output_filter_n_rules(const output_filter *f)
{
    return f->n_rules;
}

const char *output_filter_rule_name(const output_filter *f, uint32_t rule)
{
    return f->rules[rule].name;
}

uint64_t output_filter_n_matches(const output_filter *f, uint32_t rule)
{
    return f->rules[rule].n_matches;
}

void output_filter_count_in(output_filter *f, uint32_t rule, metric *counter)
{
    f->rules[rule].counter = counter;
}

static uint32_t find_child(const output_filter *f, uint32_t node, uint8_t byte)
{
    if (node == 0)
        return f->root_children[byte];
    uint32_t child = f->nodes[node].first_child;
    while (child && f->nodes[child].byte != byte)
        child = f->nodes[child].next_sibling;
    return child;
}

uint32_t filter_step(const output_filter *f, uint32_t node, uint8_t byte)
{
    uint32_t child;
    while (!(child = find_child(f, node, byte)) && node)
        node = f->nodes[node].fallback;
    return child;
}

/* Room for one more of `size` bytes; the array may move. */
static bool grow(void **array, uint32_t *capacity, uint32_t n, size_t size)
{
    if (n < *capacity)
        return true;
    uint32_t wanted = *capacity ? 2 * *capacity : 64;
    void    *grown  = realloc(*array, wanted * size);
    if (!grown)
        return false;
    *array    = grown;
    *capacity = wanted;
    return true;
}

static uint32_t add_child(output_filter *f, uint32_t node, uint8_t byte, uint16_t n_characters)
{
    if (!grow((void **)&f->nodes, &f->nodes_capacity, f->n_nodes, sizeof *f->nodes))
        return 0;
    uint32_t child  = f->n_nodes++;
    f->nodes[child] = (filter_node){
        .byte = byte, .keyword = FILTER_NONE, .n_characters = n_characters, .next_sibling = f->nodes[node].first_child};
    f->nodes[node].first_child = child;
    if (node == 0)
        f->root_children[byte] = child;
    return child;
}

/* The node of a keyword, made where it is missing; 0 without memory. */
static uint32_t add_path(output_filter *f, span keyword, uint16_t *n_characters)
{
    uint32_t node = 0, character;
    char     folded[UTF8_BYTES_MAX];
    *n_characters = 0;
    for (size_t at = 0; at < keyword.size;) {
        at += utf8_decode((span){keyword.data + at, keyword.size - at}, &character);
        size_t n = utf8_encode(filter_fold(character), folded);
        ++*n_characters;
        for (size_t i = 0; i < n; i++) {
            uint32_t child = find_child(f, node, (uint8_t)folded[i]);
            node           = child ? child : add_child(f, node, (uint8_t)folded[i], *n_characters);
            if (!node)
                return 0;
        }
    }
    return node;
}

static bool keep_text(output_filter *f, span text)
{
    if (f->n_text_bytes + text.size > f->texts_capacity) {
        size_t wanted = 2 * f->texts_capacity + FILTER_KEYWORD_BYTES_MAX;
        char  *grown  = realloc(f->texts, wanted);
        if (!grown)
            return false;
        f->texts          = grown;
        f->texts_capacity = wanted;
    }
    memcpy(f->texts + f->n_text_bytes, text.data, text.size);
    f->n_text_bytes += text.size;
    return true;
}

bool filter_rules_add(output_filter *f, uint32_t rule, span keyword, error *err)
{
    uint16_t n_characters;
    if (f->n_keywords == FILTER_KEYWORDS_MAX)
        return error_set(err, ERR_INVALID, "more than %d keywords", FILTER_KEYWORDS_MAX);
    uint32_t text = (uint32_t)f->n_text_bytes;
    uint32_t node = add_path(f, keyword, &n_characters);
    if (!node || !keep_text(f, keyword) ||
        !grow((void **)&f->keywords, &f->keywords_capacity, f->n_keywords, sizeof *f->keywords))
        return error_set(err, ERR_NO_MEMORY, "no memory for %u keywords", f->n_keywords + 1);
    uint32_t *place = &f->nodes[node].keyword;
    while (*place != FILTER_NONE)
        place = &f->keywords[*place].next;
    *place                       = f->n_keywords;
    f->keywords[f->n_keywords++] = (filter_keyword){rule, FILTER_NONE, text, (uint16_t)keyword.size, n_characters};
    f->longest_keyword           = n_characters > f->longest_keyword ? n_characters : f->longest_keyword;
    return true;
}

/* A text at a node without children can only go on from the fallback, unless a keyword waits there for the character
 * after it. */
static uint16_t n_kept_at(const output_filter *f, const filter_node *n)
{
    bool waits = n->first_child != 0;
    for (uint32_t k = n->keyword; k != FILTER_NONE; k = f->keywords[k].next)
        waits = waits || f->rules[f->keywords[k].rule].whole_words;
    return waits ? n->n_characters : f->nodes[n->fallback].n_kept;
}

bool filter_rules_link(output_filter *f, error *err)
{
    uint32_t *queue = malloc(f->n_nodes * sizeof *queue);
    if (!queue)
        return error_set(err, ERR_NO_MEMORY, "no memory for an automaton of %u states", f->n_nodes);
    uint32_t n = 0;
    queue[n++] = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t node = queue[i];
        for (uint32_t child = f->nodes[node].first_child; child; child = f->nodes[child].next_sibling) {
            filter_node *c = &f->nodes[child];
            c->fallback    = node ? filter_step(f, f->nodes[node].fallback, c->byte) : 0;
            c->shorter     = f->nodes[c->fallback].keyword != FILTER_NONE ? c->fallback : f->nodes[c->fallback].shorter;
            c->n_kept      = n_kept_at(f, c);
            queue[n++]     = child;
        }
    }
    free(queue);
    return true;
}
