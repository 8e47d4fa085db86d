/*
 * run_error: why a run ended without a terminal line of its agent (http-api.md appendix A).
 */
#ifndef WORKER_RUN_ERROR_H
#define WORKER_RUN_ERROR_H

enum run_error {
    RUN_ERROR_NONE,
    RUN_ERROR_CONFIG, /* sandstorm.json or the environment cannot serve this run */
    RUN_ERROR_E2B_AUTH,
    RUN_ERROR_E2B_RATE_LIMITED,
    RUN_ERROR_E2B_CAPACITY,
    RUN_ERROR_TEMPLATE_NOT_FOUND,
    RUN_ERROR_TEMPLATE_FALLBACK_FAILED,
    RUN_ERROR_SANDBOX_CREATE_FAILED,
    RUN_ERROR_UPLOAD_FAILED,
    RUN_ERROR_AGENT_START_FAILED,
    RUN_ERROR_AGENT_EXIT,
    RUN_ERROR_SANDBOX_LOST,
    RUN_ERROR_RUN_TIMEOUT,
    RUN_ERROR_LINE_TOO_LONG,
    RUN_ERROR_UPSTREAM_PROTOCOL,
    RUN_ERROR_SERVER_SHUTDOWN,
    RUN_ERROR_CANCELLED,
    RUN_ERROR_CLIENT_GONE,  /* in the record only: nobody is left to tell */
    RUN_ERROR_WORKER_LOST,  /* in the record only: the worker of the run died */
    RUN_ERROR_AGENT_ERROR,  /* in the record only: the runner's own `error` line was the terminal event */
    RUN_ERROR_AGENT_RESULT, /* in the record only: a `result` other than success was the terminal event */
    RUN_ERROR_INTERNAL,
    RUN_ERROR_COUNT
};

/* The code as clients see it; "" for RUN_ERROR_NONE. */
const char *run_error_code(enum run_error error);

#endif
