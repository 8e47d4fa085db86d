/*
 * tls: how this server speaks TLS with its clients: certificate, key, versions, ciphers, tickets, and who may come.
 *
 * TLS 1.2 and 1.3; ECDHE with an AEAD only; ALPN http/1.1; sessions are resumed by tickets alone, on any worker of a
 * generation; no renegotiation, no compression, no early data.
 */
#ifndef WORKER_TLS_H
#define WORKER_TLS_H

#include "common/tls_files.h"

#include <openssl/ssl.h>

/* For all connections of a worker, to be freed with SSL_CTX_free(). NULL after a log line that names the setting. */
SSL_CTX *tls_context_new(const struct tls_files *files) __attribute__((warn_unused_result));

/* Can the files be served with? A certificate that is out of date is only warned of. */
bool tls_check(const struct tls_files *files) __attribute__((warn_unused_result));

/* Why the last call of OpenSSL failed, for a person; "" when it does not tell. */
const char *tls_reason(void);

#endif
