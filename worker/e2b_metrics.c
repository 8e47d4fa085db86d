#include "worker/e2b_metrics.h"

/* In place of a status, where there was none. */
static const char *const words[] = {
    [TRANSFER_ANSWERED] = "answered",          [TRANSFER_NOT_CONNECTED] = "not_connected",
    [TRANSFER_TLS_FAILED] = "tls_failed",      [TRANSFER_TLS_UNTRUSTED] = "tls_untrusted",
    [TRANSFER_TIMED_OUT] = "timed_out",        [TRANSFER_CUT] = "cut",
    [TRANSFER_ANSWER_TOO_LARGE] = "too_large", [TRANSFER_INTERNAL] = "internal",
};

void e2b_count_answer(enum metric_operation operation, const struct http_answer *answer)
{
    metrics_sandbox_call(operation, answer->outcome == TRANSFER_ANSWERED ? answer->status : 0, words[answer->outcome]);
}

void e2b_count_cancelled(enum metric_operation operation)
{
    metrics_sandbox_call(operation, 0, "cancelled");
}

void e2b_count_retry(enum metric_operation operation)
{
    metrics_count(METRIC_SANDBOX_RETRIES, NULL, operation, 1);
}
