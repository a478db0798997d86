// links: service_postprocessor
/* Rules, a text and its cuts, all from the input: what leaves is what the reference says. */
#include "tests/unit/postprocessor/support_filter_reference.h"

static uint8_t take(void *arg)
{
    span *rest = arg;
    return rest->size ? (rest->size--, (uint8_t)*rest->data++) : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static reference_case c;
    static char           wanted[65536], got[300000];
    span                  rest = {(const char *)data, size};
    reference_random_case(&c, take, &rest);
    char          *yaml    = reference_yaml(c.rules, c.n_rules);
    output_filter *f       = output_filter_parse(span_of(yaml), "rules.yaml", NULL);
    arena         *memory  = arena_new(FILTER_STREAM_BYTES_MAX, NULL);
    uint32_t       blocked = reference_filter(c.rules, c.n_rules, span_of(c.text), wanted);
    if (!f || reference_run(f, memory, span_of(c.text), 4, take, &rest, got, sizeof got) != blocked ||
        strcmp(got, wanted))
        __builtin_trap();
    arena_free(&memory);
    output_filter_release(&f);
    free(yaml);
    return 0;
}
