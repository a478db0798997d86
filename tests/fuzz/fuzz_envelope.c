// links: llm_bus
/* Any bytes as an envelope: what decodes must say the same when encoded and decoded again. */
#include "bus/envelope.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    envelope first, second;
    uint8_t  bytes[ENVELOPE_BYTES], again[ENVELOPE_BYTES];
    if (!envelope_decode((span){(const char *)data, size}, &first, NULL))
        return 0;
    envelope_encode(&first, bytes);
    assert(envelope_decode((span){(char *)bytes, sizeof bytes}, &second, NULL));
    envelope_encode(&second, again);
    assert(memcmp(bytes, again, sizeof bytes) == 0);
    return 0;
}
