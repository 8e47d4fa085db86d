/*
 * e2b: the sandbox service as a run sees it: create, upload, start, read, probe.
 *
 * Each operation retries where e2b.md A.4 allows it, and ends with one callback that carries either what was wanted or
 * the run_error and the text for the client. Nothing here knows of runs, clients or events. Deletion is the kill
 * queue's.
 */
#ifndef WORKER_E2B_H
#define WORKER_E2B_H

#include "common/environment.h"
#include "worker/e2b_failure.h"

#include <jansson.h>

#define SANDBOX_ID_MAX_BYTES 64

/* Where sandboxes are made and reached, with which key. Shared by reference: the kill queue outlives the run. */
struct e2b_service {
    int references;
    char *unix_socket; /* of the local runtime; NULL: over TCP */
    char *api_url;
    char *sandbox_url; /* of every sandbox; "": by domain */
    char *domain;
    char *api_key; /* "" for the local runtime */
};

/* From E2B_API_URL, E2B_DOMAIN, E2B_SANDBOX_URL (e2b.md 0.2). NULL for lack of memory; starts with one reference. */
struct e2b_service *e2b_service_cloud(const struct environment *environment, const char *api_key)
    __attribute__((warn_unused_result));
struct e2b_service *e2b_service_local(const char *unix_socket) __attribute__((warn_unused_result));
struct e2b_service *e2b_service_ref(struct e2b_service *service);
void e2b_service_unref(struct e2b_service *service);

/* A sandbox that exists. */
struct e2b_sandbox {
    char id[SANDBOX_ID_MAX_BYTES + 1];
    char *access_token; /* NULL: none */
    char *base_url;
    bool needs_user; /* envd below 0.4.0 wants the user named */
};

void e2b_sandbox_free(struct e2b_sandbox *sandbox);

/* How an operation ended. */
struct e2b_result {
    enum run_error error; /* RUN_ERROR_NONE: it worked */
    const char *message;  /* for the client, "" on success */
    int status;           /* of the answer that decided, 0 when there was none */
    bool fate_unknown;    /* create: a sandbox may exist whose id is unknown, also after success (several tries) */
};

struct e2b_call; /* an operation under way */

/* Ends it without its callback; not for creates, see e2b_create_abandon(). NULL is allowed. */
void e2b_call_cancel(struct e2b_call *call);

/* What all operations need. */
struct e2b_context {
    struct http_client *http;
    struct event_base *base;
    struct e2b_service *service;
};

struct e2b_create_request {
    const char *template_id;
    int64_t timeout_s;  /* time to live */
    json_t *env;        /* object of strings, borrowed; no text of a failure holds one of them */
    const char *run_id; /* metadata: [A-Za-z0-9_-] */
    const char *instance;
    int64_t retry_timeout_ms;
    /* sandbox is NULL on failure, else the callee's to free. */
    void (*on_created)(void *context, const struct e2b_result *result, struct e2b_sandbox *sandbox);
    void *context;
};

/* NULL for lack of memory, without a callback. */
struct e2b_call *e2b_create(const struct e2b_context *e2b, const struct e2b_create_request *request)
    __attribute__((warn_unused_result));

/*
 * The run ended while its create is in flight: what was sent is never cut, only not sent again. Calls on_created with
 * the new context when the answer came, or now, with RUN_ERROR_NONE and no sandbox, when nothing is in flight.
 */
void e2b_create_abandon(struct e2b_call *call,
                        void (*on_created)(void *, const struct e2b_result *, struct e2b_sandbox *), void *context);

/* A file to be written into the sandbox; strings stay with the caller until the upload ended. */
struct e2b_file {
    const char *path; /* absolute, in the sandbox */
    const char *bytes;
    size_t length;
};

struct e2b_upload; /* an upload under way */

/*
 * All files in one round trip: one multipart request, or all at once one by one when a name cannot travel in a part's
 * header. NULL for lack of memory, without a callback.
 */
struct e2b_upload *e2b_upload(const struct e2b_context *e2b, const struct e2b_sandbox *sandbox,
                              const struct e2b_file *files, size_t count,
                              void (*on_uploaded)(void *context, const struct e2b_result *result), void *context)
    __attribute__((warn_unused_result));
void e2b_upload_cancel(struct e2b_upload *upload);

/* A file to be read from the sandbox. */
struct e2b_read_request {
    const char *path; /* absolute; copied */
    size_t limit_bytes;
    /* Inside libcurl. */
    void (*on_bytes)(void *context, const char *bytes, size_t length);
    /* The read starts anew: what on_bytes got does not count. */
    void (*on_again)(void *context);
    /* Once, unless cancelled. RUN_ERROR_SANDBOX_LOST: no other file can be read either. */
    void (*on_read)(void *context, const struct e2b_result *result);
    void *context;
};

/* GET /files. NULL for lack of memory, without a callback. */
struct e2b_call *e2b_read(const struct e2b_context *e2b, const struct e2b_sandbox *sandbox,
                          const struct e2b_read_request *request) __attribute__((warn_unused_result));

/* GET /health of the sandbox: gone is true only for the proxy's 502 (e2b.md A.3). */
struct e2b_call *e2b_probe(const struct e2b_context *e2b, const struct e2b_sandbox *sandbox,
                           void (*on_probed)(void *context, bool gone), void *context)
    __attribute__((warn_unused_result));

/* SendSignal SIGKILL to a process of the sandbox; nobody waits for its answer. */
void e2b_kill_process(const struct e2b_context *e2b, const struct e2b_sandbox *sandbox, int64_t pid);

/* [a-z0-9]+ of a length we can keep: an id becomes part of URLs. */
bool e2b_valid_sandbox_id(const char *id);

/*
 * Sends one request to the control API, with nobody to repeat it: fills in URL, socket and headers; a body is JSON.
 * NULL for lack of memory, without a callback.
 */
struct http_transfer *e2b_api_send(struct http_client *http, const struct e2b_service *service, const char *path,
                                   struct http_request *request) __attribute__((warn_unused_result));

#endif
