/*
 * tls_files: what the settings tls_cert, tls_key and tls_client_ca name, read by the master once for a generation: all
 * its workers, also those forked later, serve with the same bytes, whatever becomes of the files, and need no right to
 * read them. Only read here, understood by the workers.
 */
#ifndef COMMON_TLS_FILES_H
#define COMMON_TLS_FILES_H

#include "common/settings.h"

#include <stdbool.h>

/* What OpenSSL encrypts session tickets with: name, HMAC key, AES key. */
#define TLS_TICKET_KEY_BYTES 80

struct tls_files {
    char *certificate;                              /* PEM: the server's own, then its chain */
    char *key;                                      /* PEM */
    char *client_ca;                                /* PEM; NULL: clients need no certificate */
    unsigned char ticket_key[TLS_TICKET_KEY_BYTES]; /* random: any worker of the generation resumes a session */
};

/* *files is NULL when no TLS is wanted. False after a log line: the settings do not fit, a file cannot be read. */
bool tls_files_read(const struct settings *settings, struct tls_files **files) __attribute__((warn_unused_result));
/* Wipes the keys. NULL is allowed. */
void tls_files_free(struct tls_files *files);

#endif
