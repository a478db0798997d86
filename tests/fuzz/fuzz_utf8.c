// links: llm_base
/* Any bytes: decoding moves on, agrees with the valid prefix, and what the JSON writer makes of them is UTF-8. */
#include "base/json_out.h"
#include "base/utf8.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    span     text = {(const char *)data, size}, json;
    char    *out  = malloc(6 * size + 3);
    json_out j    = json_out_into(out, 6 * size + 3);
    json_out_string(&j, text);
    if (!json_out_finish(&j, &json, NULL) || !utf8_is_valid(json) || utf8_valid_prefix(text) > size)
        abort();
    free(out);
    return 0;
}
