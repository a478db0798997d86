/* The server over TLS, with certificates made here. */
#include "support_http.h"

#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    char     cert[64], key[64];
    SSL_CTX *client;
} tls_files;

/* A key and a certificate of its own for localhost, the common name telling one from another. */
static void make_certificate(const tls_files *files, const char *name)
{
    EVP_PKEY *key  = EVP_EC_gen("P-256");
    X509     *cert = X509_new();
    assert_true(key && cert);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), 0);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(cert));
    X509_set_pubkey(cert, key);
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    FILE *out = fopen(files->cert, "w");
    assert_true(out && PEM_write_X509(out, cert));
    fclose(out);
    out = fopen(files->key, "w");
    assert_true(out && PEM_write_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL));
    fclose(out);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static void start_tls(fixture *f, tls_files *files)
{
    *files = (tls_files){.cert = "/tmp/troupe_cert_XXXXXX", .key = "/tmp/troupe_key_XXXXXX"};
    close(mkstemp(files->cert));
    close(mkstemp(files->key));
    make_certificate(files, "first");
    files->client        = SSL_CTX_new(TLS_client_method());
    f->options.cert_file = files->cert;
    f->options.key_file  = files->key;
    start(f);
}

static void end_tls(tls_files *files)
{
    unlink(files->cert);
    unlink(files->key);
    SSL_CTX_free(files->client);
}

static client *tls_client(fixture *f, SSL_CTX *context)
{
    client *c   = client_new(f);
    c->ssl      = SSL_new(context);
    int64_t end = clock_now_ns(clock_system()) + 2 * NS_PER_S;
    SSL_set_fd(c->ssl, c->fd);
    int got;
    while ((got = SSL_connect(c->ssl)) != 1 && clock_now_ns(clock_system()) < end) {
        int why = SSL_get_error(c->ssl, got);
        assert_true(why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE);
        turn(f, NULL);
    }
    assert_int_equal(1, got);
    return c;
}

static void peer_common_name(client *c, char *name, int size)
{
    X509 *cert = SSL_get1_peer_certificate(c->ssl);
    X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, name, size);
    X509_free(cert);
}

static void requests_and_streams_go_over_tls(void **state)
{
    fixture  *f = *state;
    tls_files files;
    start_tls(f, &files);
    client *c = tls_client(f, files.client);
    send_text(c, "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    pump_until(f, c, 1000, has(c, "POST /a? [] hello"));
    send_text(c, "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    pump_until(f, c, 1000, has(c, "X-Accel-Buffering: no"));
    char event[1000];
    memset(event, 'x', sizeof event);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(HTTP_WRITE_OK, http_stream_write(f->server, f->last, (span){event, sizeof event}));
        turn(f, c);
    }
    http_stream_end(f->server, f->last);
    pump_until(f, c, 1000, has(c, "\r\n0\r\n\r\n"));
    assert_true(c->in_size > 100000);
    c->in_size = 0;
    send_text(c, "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    pump_until(f, c, 1000, c->closed); /* by a close_notify: client_read counts nothing else as closed */
    assert_true(has(c, "GET /a?"));
    client_free(c);
    end_tls(&files);
}

static void a_tls_client_that_leaves_while_waiting_is_noticed(void **state)
{
    fixture  *f = *state;
    tls_files files;
    start_tls(f, &files);
    client *c = tls_client(f, files.client);
    send_text(c, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    pump_until(f, c, 1000, f->last != 0);
    close(c->fd);
    c->fd = -1;
    pump_until(f, NULL, 100, f->n_gone == 1);
    client_free(c);

    c = tls_client(f, files.client);
    send_text(c, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    pump_until(f, c, 1000, f->n_requests == 2);
    SSL_shutdown(c->ssl); /* says goodbye, keeps the socket */
    pump_until(f, NULL, 100, f->n_gone == 2);
    client_free(c);
    end_tls(&files);
}

static void certificates_are_read_again_for_new_connections(void **state)
{
    fixture  *f = *state;
    tls_files files;
    start_tls(f, &files);
    client *old = tls_client(f, files.client);
    char    name[16];
    make_certificate(&files, "second");
    error err;
    assert_true(http_server_reload(f->server, &err));
    client *fresh = tls_client(f, files.client);
    peer_common_name(fresh, name, sizeof name);
    assert_string_equal("second", name);
    send_text(old, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    pump_until(f, old, 1000, has(old, "GET /a?"));

    FILE *broken = fopen(files.cert, "w");
    fputs("not a certificate", broken);
    fclose(broken);
    assert_false(http_server_reload(f->server, &err));
    assert_non_null(strstr(err.text, files.cert));
    client *after = tls_client(f, files.client);
    peer_common_name(after, name, sizeof name);
    assert_string_equal("second", name);
    client_free(old), client_free(fresh), client_free(after);
    end_tls(&files);
}

static void an_unfinished_handshake_is_cut(void **state)
{
    fixture *f              = *state;
    f->options.handshake_ms = 100;
    tls_files files;
    start_tls(f, &files);
    client *c = client_new(f);
    send_bytes(c, "\x16\x03\x01", 3);
    pump_until(f, c, 1000, c->closed);
    client_free(c);
    SSL_CTX_set_max_proto_version(files.client, TLS1_1_VERSION);
    c      = client_new(f);
    c->ssl = SSL_new(files.client);
    SSL_set_fd(c->ssl, c->fd);
    int got = 0;
    for (int i = 0; i < 200 && got <= 0; i++) {
        got = SSL_connect(c->ssl);
        pump_for(f, NULL, 1);
    }
    assert_true(got <= 0); /* TLS 1.1 is refused */
    assert_int_equal(0, f->n_requests);
    client_free(c);
    end_tls(&files);
}

static void a_plain_client_is_told_that_tls_is_not_spoken_here(void **state)
{
    fixture *f = *state;
    start(f);
    client *c = client_new(f);
    send_bytes(c, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11);
    pump_until(f, c, 1000, c->closed);
    assert_true(has(c, "this port speaks plain HTTP"));
    client_free(c);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(requests_and_streams_go_over_tls),
        TEST(a_tls_client_that_leaves_while_waiting_is_noticed),
        TEST(certificates_are_read_again_for_new_connections),
        TEST(an_unfinished_handshake_is_cut),
        TEST(a_plain_client_is_told_that_tls_is_not_spoken_here),
    };
    return cmocka_run_group_tests_name("http_tls", tests, NULL, NULL);
}
