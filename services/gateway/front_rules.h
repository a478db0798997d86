/* Front rules: canned answers to frequent questions, given before any model runs.
 *
 *   rules:
 *     - name: opening-hours
 *       match: keyword            # exact | keyword | regex
 *       patterns: [opening hours, when are you open]
 *       case_insensitive: true    # the default
 *       answer: We are open from 9 to 17.
 *       finish: stop              # or content_filter
 *
 * `exact` compares the whole question without the spaces around it, `keyword` looks for the words with word boundaries,
 * `regex` is PCRE2. Matching is bounded, so that no pattern hangs the gateway: a question that reaches the bound
 * matches nothing. The first rule that matches answers.
 *
 * Looked at are the last user message of a chat, and each text prompt of a completion: a list may have some that a rule
 * answers and others that the model does. Not looked at: prompts of token ids, system and earlier messages, answers,
 * and questions over FRONT_QUESTION_BYTES_MAX or that are not UTF-8. */
#ifndef TROUPE_GATEWAY_FRONT_RULES_H
#define TROUPE_GATEWAY_FRONT_RULES_H

#include "base/error.h"
#include "base/span.h"
#include "bus/messages.h"

enum {
    FRONT_RULES_MAX          = 1000,
    FRONT_PATTERNS_MAX       = 64, /* of one rule */
    FRONT_FILE_BYTES_MAX     = 4 << 20,
    FRONT_QUESTION_BYTES_MAX = 65536, /* longer questions are not matched */
    FRONT_ANSWER_BYTES_MAX   = 65536
};

typedef struct front_rules front_rules;

typedef struct {
    const char   *name;
    span          answer;
    finish_reason finish; /* stop or content_filter */
} front_answer;

/* Compiles rules from YAML text; `name` is for errors, which say line and column. NULL with *err. */
front_rules *front_rules_parse(span yaml, const char *name, error *err);

/* Reads the file and remembers it for front_rules_reload. */
front_rules *front_rules_load(const char *path, error *err);
void         front_rules_free(front_rules **rules);
size_t       front_rules_count(const front_rules *rules);

/* Takes the file's rules when it changed since it was read (`force`: in any case). False with *err when the new file is
 * bad: the old rules stay, and the error is said once. *changed (may be NULL) tells whether rules were taken. */
bool front_rules_reload(front_rules *rules, bool force, bool *changed, error *err);

/* Finds the first rule that matches, and counts it. What *out points to lives until the next reload. */
bool front_rules_match(const front_rules *rules, span question, front_answer *out);

#endif
