#include "services/gateway/openapi.h"

extern const char openapi_first[], openapi_end[];

__asm__(".pushsection .rodata\n"
        "openapi_first:\n"
        ".incbin \"" OPENAPI_FILE "\"\n"
        "openapi_end:\n"
        ".popsection\n");

span openapi_document(void)
{
    return (span){openapi_first, (size_t)(openapi_end - openapi_first)};
}
