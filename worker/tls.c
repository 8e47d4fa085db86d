#include "worker/tls.h"

#include "common/log.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <string.h>

#define CIPHERS_TLS_1_2 "ECDHE+AESGCM:ECDHE+CHACHA20"

/* Sessions of one server are not another's, also behind one name. */
static const unsigned char session_context[] = "sandstorm";

const char *tls_reason(void)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());

    return reason != NULL ? reason : "";
}

/* False, so that it can be returned. */
static bool refuse(const char *setting, const char *fault)
{
    const char *reason = tls_reason();

    log_error("setting %s: %s%s%s", setting, fault, *reason != '\0' ? ": " : "", reason);
    ERR_clear_error();
    return false;
}

/* A key with a passphrase is not asked for on a terminal. */
static int no_passphrase(char *out, int size, int writing, void *context)
{
    (void)out;
    (void)size;
    (void)writing;
    (void)context;
    return 0;
}

/* The next certificate, NULL at the end. */
static X509 *next_certificate(BIO *pem)
{
    X509 *certificate = PEM_read_bio_X509(pem, NULL, no_passphrase, NULL);

    if (certificate == NULL && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE)
        ERR_clear_error();
    return certificate;
}

static bool use_certificates(SSL_CTX *context, BIO *pem)
{
    X509 *certificate = next_certificate(pem);
    bool good = certificate != NULL && SSL_CTX_use_certificate(context, certificate) == 1;

    X509_free(certificate);
    if (!good)
        return refuse("tls_cert", "no certificate in PEM that can be used");
    while ((certificate = next_certificate(pem)) != NULL) {
        if (SSL_CTX_add0_chain_cert(context, certificate) != 1) {
            X509_free(certificate);
            return refuse("tls_cert", "its chain cannot be used");
        }
    }
    return ERR_peek_last_error() == 0 || refuse("tls_cert", "its chain cannot be read");
}

static bool use_key(SSL_CTX *context, BIO *pem)
{
    EVP_PKEY *key = PEM_read_bio_PrivateKey(pem, NULL, no_passphrase, NULL);
    bool good = key != NULL;

    if (!good)
        return refuse("tls_key", "no private key in PEM without a passphrase");
    good = SSL_CTX_use_PrivateKey(context, key) == 1 && SSL_CTX_check_private_key(context) == 1;
    EVP_PKEY_free(key);
    return good || refuse("tls_key", "it is not the key of tls_cert");
}

/* Only who has a certificate of one of these may come. */
static bool use_client_ca(SSL_CTX *context, BIO *pem)
{
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    X509 *certificate;
    bool any = false, good = true;

    while (good && (certificate = next_certificate(pem)) != NULL) {
        good = X509_STORE_add_cert(store, certificate) == 1 && SSL_CTX_add_client_CA(context, certificate) == 1;
        any = true;
        X509_free(certificate);
    }
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return (any && good && ERR_peek_last_error() == 0) || refuse("tls_client_ca", "no certificates in PEM");
}

/* One text in memory through one of the functions above. */
static bool use(SSL_CTX *context, const char *text, bool (*take)(SSL_CTX *context, BIO *pem))
{
    BIO *pem = BIO_new_mem_buf(text, -1);
    bool good = pem != NULL && take(context, pem);

    BIO_free(pem);
    return good;
}

/* HTTP/1.1 is all there is; who wants only something else is refused before it asks. */
static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *length, const unsigned char *offered,
                           unsigned int offered_length, void *context)
{
    static const unsigned char ours[] = "\x08http/1.1\x08http/1.0";

    (void)ssl;
    (void)context;
    return SSL_select_next_proto((unsigned char **)out, length, ours, sizeof ours - 1, offered, offered_length) ==
                   OPENSSL_NPN_NEGOTIATED
               ? SSL_TLSEXT_ERR_OK
               : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static bool set_rules(SSL_CTX *context, const struct tls_files *files)
{
    unsigned char ticket_key[TLS_TICKET_KEY_BYTES];
    bool good;

    memcpy(ticket_key, files->ticket_key, sizeof ticket_key);
    SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                     SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);
    good = SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1 &&
           SSL_CTX_set_cipher_list(context, CIPHERS_TLS_1_2) == 1 && SSL_CTX_set_num_tickets(context, 1) == 1 &&
           SSL_CTX_set_session_id_context(context, session_context, sizeof session_context - 1) == 1 &&
           SSL_CTX_set_tlsext_ticket_keys(context, ticket_key, sizeof ticket_key) == 1;
    OPENSSL_cleanse(ticket_key, sizeof ticket_key);
    return good || refuse("tls_cert", "TLS cannot be set up");
}

SSL_CTX *tls_context_new(const struct tls_files *files)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());

    ERR_clear_error();
    if (context == NULL) {
        log_error("TLS cannot be set up: out of memory");
        return NULL;
    }
    if (set_rules(context, files) && use(context, files->certificate, use_certificates) &&
        use(context, files->key, use_key) &&
        (files->client_ca == NULL || use(context, files->client_ca, use_client_ca)))
        return context;
    SSL_CTX_free(context);
    return NULL;
}

bool tls_check(const struct tls_files *files)
{
    SSL_CTX *context = tls_context_new(files);
    const X509 *certificate = context != NULL ? SSL_CTX_get0_certificate(context) : NULL;

    if (certificate != NULL && X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0)
        log_warn("setting tls_cert: the certificate has expired");
    if (certificate != NULL && X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0)
        log_warn("setting tls_cert: the certificate is not valid yet");
    SSL_CTX_free(context);
    return context != NULL;
}
