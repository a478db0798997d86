// links: service_postprocessor
/* A hostile file of rules: it is rules, or it is refused with a reason. */
#include "services/postprocessor/output_filter.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    error          err = {0};
    output_filter *f   = output_filter_parse((span){(const char *)data, size}, "rules.yaml", &err);
    if (!f && !err.text[0])
        __builtin_trap();
    output_filter_release(&f);
    return 0;
}
