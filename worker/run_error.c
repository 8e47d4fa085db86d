#include "worker/run_error.h"

#include "common/log.h"

static const char *const codes[RUN_ERROR_COUNT] = {
    [RUN_ERROR_NONE] = "",
    [RUN_ERROR_CONFIG] = "config_error",
    [RUN_ERROR_E2B_AUTH] = "e2b_auth",
    [RUN_ERROR_E2B_RATE_LIMITED] = "e2b_rate_limited",
    [RUN_ERROR_E2B_CAPACITY] = "e2b_capacity",
    [RUN_ERROR_TEMPLATE_NOT_FOUND] = "template_not_found",
    [RUN_ERROR_TEMPLATE_FALLBACK_FAILED] = "template_fallback_failed",
    [RUN_ERROR_SANDBOX_CREATE_FAILED] = "sandbox_create_failed",
    [RUN_ERROR_UPLOAD_FAILED] = "upload_failed",
    [RUN_ERROR_AGENT_START_FAILED] = "agent_start_failed",
    [RUN_ERROR_AGENT_EXIT] = "agent_exit",
    [RUN_ERROR_SANDBOX_LOST] = "sandbox_lost",
    [RUN_ERROR_RUN_TIMEOUT] = "run_timeout",
    [RUN_ERROR_LINE_TOO_LONG] = "line_too_long",
    [RUN_ERROR_UPSTREAM_PROTOCOL] = "upstream_protocol",
    [RUN_ERROR_SERVER_SHUTDOWN] = "server_shutdown",
    [RUN_ERROR_CANCELLED] = "cancelled",
    [RUN_ERROR_CLIENT_GONE] = "client_gone",
    [RUN_ERROR_WORKER_LOST] = "worker_lost",
    [RUN_ERROR_AGENT_ERROR] = "agent_error",
    [RUN_ERROR_AGENT_RESULT] = "agent_result",
    [RUN_ERROR_INTERNAL] = "internal",
};

const char *run_error_code(enum run_error error)
{
    if ((unsigned)error >= RUN_ERROR_COUNT)
        log_panic("run_error: no error %d", (int)error);
    return codes[error];
}
