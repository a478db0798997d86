// links: llm_text llm_base
/* A hostile template over a fixed conversation: it renders or it is refused. */
#include "text/chat_template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    error          err;
    text_part     *parts;
    uint32_t       n_parts;
    arena         *memory    = arena_new(4 << 20, &err);
    json_t        *variables = json_pack("{s:[{s:s,s:s}],s:s,s:i,s:[f,n,b],s:s}", "messages", "role", "user", "content",
                                         "Hi é", "x", "<|im_end|>", "n", 3, "list", 1.5, 1, "bos_token", "<s>");
    chat_template *t         = chat_template_new((span){(const char *)data, size}, &err);
    if (t && !chat_template_render(t, variables, 1700000000, 1 << 16, memory, &parts, &n_parts, &err) && !err.text[0])
        __builtin_trap();
    chat_template_free(&t);
    json_decref(variables);
    arena_free(&memory);
    return 0;
}
