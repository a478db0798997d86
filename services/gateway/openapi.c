#include "services/gateway/openapi.h"

#include "base/embed.h"

EMBED_FILE(openapi, OPENAPI_FILE);

span openapi_document(void)
{
    return EMBEDDED(openapi);
}
