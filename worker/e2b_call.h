/*
 * e2b_call: one operation at the sandbox service: sent, judged, sent again where the table allows it, ended once.
 *
 * Inside of the e2b layer only: e2b_api.c, envd.c and agent_stream.c describe their operation here.
 */
#ifndef WORKER_E2B_CALL_H
#define WORKER_E2B_CALL_H

#include "worker/e2b.h"
#include "worker/e2b_metrics.h"

#include <jansson.h>

/* How a request to a sandbox is dressed (e2b.md 0.8). */
enum e2b_dress {
    E2B_PLAIN,      /* no RPC */
    E2B_RPC_UNARY,  /* one JSON object each way */
    E2B_RPC_STREAM, /* envelopes, with keepalives */
};

/* Who runs a process (e2b.md 0.12). */
enum e2b_user {
    E2B_USER_OF_ENVD, /* envd chooses, which is `user` */
    E2B_USER_NAMED,   /* `user`, named to an envd that does not choose */
    E2B_USER_ROOT,
};

struct e2b_call_spec {
    enum e2b_stage stage;
    enum metric_operation counted_as;
    const char *method;
    char *url;                         /* taken over; NULL counts as lack of memory */
    const struct e2b_sandbox *sandbox; /* the sandbox it goes to; NULL: the control API */
    const char *content_type;          /* NULL: none */
    enum e2b_dress dress;
    enum e2b_user user;
    char *body; /* taken over; NULL: none */
    size_t body_length;
    struct http_part *parts; /* taken over, instead of body */
    size_t part_count;
    json_t *secrets; /* reference taken over: an object of strings that no text may hold; NULL: none */
    int64_t total_timeout_ms;
    int64_t stall_timeout_ms;
    size_t answer_max_bytes;
    size_t stream_max_bytes;  /* of what on_body gets; 0: none */
    int64_t retry_timeout_ms; /* for E2B_TRIES_TIMED */
    bool send_once;
    /* Of a 2xx answer as it comes. Then on_end gets the answer unjudged, with RUN_ERROR_NONE, unless wants_whole. */
    void (*on_body)(void *operation, const char *bytes, size_t length);
    /* Outside of libcurl: all that had come was given to on_body. NULL: not wanted. */
    void (*on_body_end)(void *operation);
    /* A 2xx answer that on_body did not get whole is a failure like any other, and tried again. */
    bool wants_whole;
    /* Before each try but the first: what on_body got so far does not count. NULL: not wanted. */
    void (*on_again)(void *operation);
    /* Once, unless cancelled: the call is gone after it. answer is NULL only for lack of memory or when abandoned. */
    void (*on_end)(void *operation, const struct e2b_result *result, const struct http_answer *answer);
    /* Frees the operation; after on_end or a cancel. */
    void (*free_operation)(void *operation);
    void *operation;
};

/*
 * Takes over what the spec says, also when it fails: then NULL, with everything freed and no callback. Never calls back
 * before it returned.
 */
struct e2b_call *e2b_call_new(const struct e2b_context *e2b, const struct e2b_call_spec *spec)
    __attribute__((warn_unused_result));

/* No further try. True if a request is in flight, whose answer on_end will get; else on_end was not called. */
bool e2b_call_abandon(struct e2b_call *call) __attribute__((warn_unused_result));

/* Of a create: a try that failed may have left a sandbox. */
bool e2b_call_fate_unknown(const struct e2b_call *call);

/* The transfer in flight, NULL between tries. */
struct http_transfer *e2b_call_transfer(const struct e2b_call *call);

/* When the last try was sent (monotonic). */
int64_t e2b_call_sent_ms(const struct e2b_call *call);

void *e2b_call_operation(const struct e2b_call *call);

/* https://host/path of the sandbox; NULL for lack of memory. */
char *e2b_sandbox_url(const struct e2b_sandbox *sandbox, const char *path);

/* A result with the given error; the message is kept by pointer. */
struct e2b_result e2b_failed(enum run_error error, const char *message);

#endif
