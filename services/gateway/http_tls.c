/* Loading of the server's TLS context. */
#include "services/gateway/http_tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

/* Clients that offer HTTP/2 are told that this server speaks HTTP/1.1 (RFC 7301); others are not troubled. */
static int choose_http_1_1(SSL *ssl, const unsigned char **out, unsigned char *out_size, const unsigned char *offered,
                           unsigned offered_size, void *context)
{
    static const unsigned char ours[] = "\x08http/1.1";
    (void)ssl, (void)context;
    int found = SSL_select_next_proto((unsigned char **)out, out_size, ours, sizeof ours - 1, offered, offered_size);
    return found == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

static SSL_CTX *fail(SSL_CTX *context, const char *file, const char *expected, error *err)
{
    char reason[160];
    ERR_error_string_n(ERR_peek_last_error(), reason, sizeof reason);
    ERR_clear_error();
    SSL_CTX_free(context);
    error_set(err, ERR_INVALID, "%s: expected %s (%s)", file, expected, reason);
    return NULL;
}

SSL_CTX *http_tls_context(const char *cert_file, const char *key_file, error *err)
{
    ERR_clear_error();
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (!context)
        return fail(NULL, cert_file, "a working TLS library", err);
    if (SSL_CTX_use_certificate_chain_file(context, cert_file) != 1)
        return fail(context, cert_file, "a readable PEM file with the server's certificate chain", err);
    if (SSL_CTX_use_PrivateKey_file(context, key_file, SSL_FILETYPE_PEM) != 1)
        return fail(context, key_file, "a readable PEM file with the key of that certificate", err);
    if (SSL_CTX_check_private_key(context) != 1)
        return fail(context, key_file, "the key that belongs to the certificate", err);

    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS); /* an idle connection keeps no 34 KiB of buffers */
    /* A client that closes TCP without a close_notify left like any other; requests are framed by HTTP. */
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                     SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF); /* tickets resume sessions and the client keeps them */
    SSL_CTX_set_session_id_context(context, (const unsigned char *)"troupe", 6);
    SSL_CTX_set_alpn_select_cb(context, choose_http_1_1, NULL);
    return context;
}
