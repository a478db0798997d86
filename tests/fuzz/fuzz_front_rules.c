/* A file of rules, and its own text as the question. */
// links: service_gateway
#include "services/gateway/front_rules.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    error        err   = {0};
    span         text  = {(const char *)data, size};
    front_rules *rules = front_rules_parse(text, "rules", &err);
    front_answer out;
    if (rules)
        front_rules_match(rules, text, &out);
    else if (err.code == ERR_NONE)
        __builtin_trap();
    front_rules_free(&rules);
    return 0;
}
