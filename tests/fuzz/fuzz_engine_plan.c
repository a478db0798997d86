// links: service_executor
/* Any plans that decode, one after the other, into an engine with a tiny model. Input: records of a length (two bytes)
 * and a step.plan body. */
#include "base/log.h"
#include "executor/step.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static engine *new_engine(void)
{
    executor_options o     = {0};
    option_group     group = {"executor", executor_option_rows, n_executor_option_rows, &o};
    log_set_level(LOG_OFF);
    if (!option_parse(&group, 1, 0, NULL, NULL, NULL))
        abort();
    o.model                  = TESTS_DIR "/data/models/gqa_tied.gguf";
    o.weight_cache           = "off"; /* leaves no file beside the test's data */
    o.backend                = "cpu";
    o.n_threads              = 1;
    o.max_num_seqs           = 4;
    o.max_model_len          = 64;
    o.max_num_batched_tokens = 32;
    o.max_logit_rows         = 16;
    o.kv_cache_memory        = 32 * 4096;
    return engine_new(&o, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static engine *e;
    static arena  *memory;
    if (!e && (!(e = new_engine()) || !(memory = arena_new((4 << 20) + engine_result_bytes(e), NULL))))
        abort();
    engine_reset(e);
    while (size >= 2) {
        size_t      bytes = data[0] | (size_t)data[1] << 8;
        const void *plan;
        bytes = bytes < size - 2 ? bytes : size - 2;
        arena_reset(memory);
        if (message_decode(MSG_STEP_PLAN, (span){(const char *)data + 2, bytes}, memory, &plan, NULL) &&
            engine_run(e, plan, memory).step != ((const step_plan *)plan)->step)
            abort();
        data += 2 + bytes;
        size -= 2 + bytes;
    }
    return 0;
}
