/* The TLS side of the HTTP server: one OpenSSL context from a certificate chain and a key, TLS 1.2 and later. */
#ifndef TROUPE_GATEWAY_HTTP_TLS_H
#define TROUPE_GATEWAY_HTTP_TLS_H

#include "base/error.h"

typedef struct ssl_ctx_st SSL_CTX;

/* Loads PEM files. NULL with the file at fault and OpenSSL's reason. Free with SSL_CTX_free. */
SSL_CTX *http_tls_context(const char *cert_file, const char *key_file, error *err);

#endif
