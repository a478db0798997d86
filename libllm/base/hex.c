#include "base/hex.h"

#include <stdint.h>

void hex_print(const void *bytes, size_t n_bytes, char *text)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t    *byte     = bytes;
    for (size_t i = 0; i < n_bytes; i++) {
        text[2 * i]     = digits[byte[i] >> 4];
        text[2 * i + 1] = digits[byte[i] & 15];
    }
    text[2 * n_bytes] = '\0';
}
