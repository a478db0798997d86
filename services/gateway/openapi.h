/* What GET /openapi.json gives: the file openapi.json beside this one, as it was when the program was built. */
#ifndef TROUPE_GATEWAY_OPENAPI_H
#define TROUPE_GATEWAY_OPENAPI_H

#include "base/span.h"

/* The document, an OpenAPI 3.2 description of the whole HTTP API. */
span openapi_document(void);

#endif
