/* Rules and their automaton, as output_filter.c runs it, filter_rules.c builds it and filter_file.c reads it. Internal
 * to the output filter. */
#ifndef TROUPE_POSTPROCESSOR_FILTER_RULES_H
#define TROUPE_POSTPROCESSOR_FILTER_RULES_H

#include "base/utf8.h"
#include "postprocessor/output_filter.h"

typedef enum { FILTER_BLOCK, FILTER_MASK, FILTER_REPLACE } filter_action;

typedef struct {
    char          name[FILTER_NAME_BYTES_MAX + 1];
    filter_action action;
    bool          case_insensitive, whole_words;
    char          replacement[FILTER_REPLACEMENT_BYTES_MAX];
    uint32_t      replacement_bytes;
    uint64_t      n_matches;
    metric       *counter; /* NULL: none */
} filter_rule;

typedef struct {
    uint32_t rule;
    uint32_t next; /* keyword that ends at the same node, in the order of the file; FILTER_NONE */
    uint32_t text; /* in output_filter.texts, as it was written */
    uint16_t n_bytes, n_characters;
} filter_keyword;

#define FILTER_NONE UINT32_MAX

/* A node of the trie over the UTF-8 bytes of folded keywords; 0 is the root, and no child. */
typedef struct {
    uint32_t first_child, next_sibling;
    uint32_t fallback; /* the longest proper suffix that is a node */
    uint32_t shorter;  /* the nearest node along the fallbacks at which a keyword ends; 0: none */
    uint32_t keyword;  /* that ends here; FILTER_NONE */
    uint16_t n_characters;
    uint16_t n_kept; /* the characters at the end of the text that a text at this node has to keep back */
    uint8_t  byte;
} filter_node;

struct output_filter {
    uint32_t        n_holders;
    filter_rule    *rules;
    uint32_t        n_rules;
    filter_keyword *keywords;
    uint32_t        n_keywords, keywords_capacity;
    char           *texts;
    size_t          n_text_bytes, texts_capacity;
    filter_node    *nodes;
    uint32_t        n_nodes, nodes_capacity;
    uint32_t        root_children[256];
    uint32_t        longest_keyword; /* in characters */
};

/* Without rules; FILTER_RULES_MAX fit in. */
output_filter *filter_rules_new(error *err);

/* Adds a keyword to rule `rule`, whose other fields are set: valid UTF-8, 1 to FILTER_KEYWORD_BYTES_MAX bytes. */
bool filter_rules_add(output_filter *f, uint32_t rule, span keyword, error *err) MUST_CHECK;

/* After the last keyword. */
bool filter_rules_link(output_filter *f, error *err) MUST_CHECK;

uint32_t filter_fold(uint32_t character);
uint32_t filter_step(const output_filter *f, uint32_t node, uint8_t byte);

#endif
