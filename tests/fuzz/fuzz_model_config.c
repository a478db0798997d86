/* Any bytes as a config: of a GGUF file when they begin as one, of config.json otherwise; and of a pooling. */
// links: llm_model
#include "model/model_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    error        err    = {0};
    model_config config = {0};
    gguf        *file   = gguf_open_memory(data, n_bytes, "fuzz", &err);
    bool         ok     = file ? model_config_from_gguf(&config, file, &err)
                               : model_config_from_json(&config, (span){(const char *)data, n_bytes}, "fuzz/config.json", &err);
    gguf_close(&file);
    if (!ok && err.text[0] == '\0')
        __builtin_trap(); /* a refusal says why */
    err = (error){0};
    if (!model_config_check_modules((span){(const char *)data, n_bytes}, "fuzz/modules.json", &err) && !err.text[0])
        __builtin_trap();
    err = (error){0};
    ok  = model_config_pooling_from_json(&config, (span){(const char *)data, n_bytes}, "fuzz/1_Pooling/config.json",
                                         &err);
    if (!ok && err.text[0] == '\0')
        __builtin_trap();
    return 0;
}
