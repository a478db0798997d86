// links: llm_bus
/* Any bytes as the body of any message: the first byte picks the type. What decodes must encode, and print. */
#include "bus/messages.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t encoded[1 << 20];
    static char    text[4096];
    static arena  *memory;
    if (!memory)
        memory = arena_new(1 << 22, NULL);
    arena_reset(memory);
    if (size == 0)
        return 0;
    const message_info *info = &message_infos[data[0] % n_message_infos];
    const void         *body;
    if (!message_decode(info->type, (span){(const char *)data + 1, size - 1}, memory, &body, NULL))
        return 0;
    wire_writer out = {encoded, sizeof encoded, 0, false};
    if (!message_encode(info->type, body, &out, NULL))
        abort();
    wire_print(info->body, body, text, sizeof text);
    return 0;
}
