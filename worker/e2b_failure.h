/*
 * e2b_failure: the table "stage x failure -> what the run does" of e2b.md A.4, as data.
 *
 * Pure: an answer goes in, a verdict comes out; nothing is sent or waited for here.
 */
#ifndef WORKER_E2B_FAILURE_H
#define WORKER_E2B_FAILURE_H

#include "worker/error_text.h"
#include "worker/http_client.h"
#include "worker/run_error.h"

/* The stages of a run at the sandbox service that can be refused; deletion has its own rules (kill_queue). */
enum e2b_stage {
    E2B_STAGE_CREATE,
    E2B_STAGE_UPLOAD,
    E2B_STAGE_START,
    E2B_STAGE_READ,  /* of a file: a failure skips it */
    E2B_STAGE_PROBE, /* health, signal: one try, only SANDBOX_LOST means something */
    E2B_STAGE_COUNT
};

/* For the log: "create", "upload", … */
const char *e2b_stage_name(enum e2b_stage stage);

enum e2b_failure {
    E2B_SUCCESS, /* 2xx */
    E2B_NOT_CONNECTED,
    E2B_TLS_HANDSHAKE,
    E2B_TLS_CERTIFICATE,
    E2B_NO_ANSWER, /* time-out after sending, silence */
    E2B_400,
    E2B_401,
    E2B_403,
    E2B_403_TEMPLATE, /* the text names the template */
    E2B_404,
    E2B_409,
    E2B_429_WAIT, /* with Retry-After */
    E2B_429,      /* without */
    E2B_500,      /* of the API or envd, in their JSON */
    E2B_502_GONE, /* the proxy: the sandbox was not found */
    E2B_502_PORT, /* the proxy: port is not open */
    E2B_502,      /* any other */
    E2B_503_504,
    E2B_OTHER_5XX, /* also a 500 that is not theirs */
    E2B_OTHER_4XX, /* also 507: the disk is full */
    E2B_3XX,
    E2B_404_FOREIGN, /* a 404 that is not JSON: a wrong URL */
    E2B_CUT,         /* reset or short body after sending */
    E2B_TOO_LARGE,   /* body over its cap */
    E2B_OURS,        /* memory, libcurl's set-up */
    E2B_FAILURE_COUNT
};

/* tries: within create_retry_timeout instead of a number. */
#define E2B_TRIES_TIMED (-1)

struct e2b_verdict {
    int tries;            /* in all, or E2B_TRIES_TIMED */
    enum run_error error; /* when they are used up */
    bool probe;           /* ask GET /health first: a gone sandbox is sandbox_lost instead */
    bool fate_unknown;    /* create: a sandbox may exist whose id we do not know (F) */
};

/* What an answer means, whatever the stage. */
enum e2b_failure e2b_classify(const struct http_answer *answer);
const struct e2b_verdict *e2b_judge(enum e2b_stage stage, enum e2b_failure failure);

/* A Connect error (e2b.md A.5), by its code; NULL or a code that is none of the sixteen is one like most. */
struct e2b_rpc_verdict {
    const char *code;
    struct e2b_verdict before_start;
    enum run_error after_start;
};

const struct e2b_rpc_verdict *e2b_judge_rpc(const char *code);
/* The same for an answer of Start with an error status: NULL unless its body is a Connect error. */
const struct e2b_rpc_verdict *e2b_judge_rpc_answer(const struct http_answer *answer);

#define E2B_MESSAGE_MAX_BYTES ERROR_TEXT_MAX_BYTES

/* For the client and the log: what was wrong, in the service's own words where it has some, without the key. */
void e2b_message(const struct http_answer *answer, const char *api_key, char out[static E2B_MESSAGE_MAX_BYTES]);

/* Milliseconds before try number `next` (2, 3, …): 250 ms, then 1 s, each +- 30 %. */
int64_t e2b_backoff_ms(int next);
/* Create's full jitter for 429, 503, 504: from 0.5 s doubling to 8 s, never below Retry-After. */
int64_t e2b_timed_backoff_ms(int next, int64_t retry_after_s);

#endif
