/*
 * e2b_metrics: each request to the sandbox service is counted once, by its operation and how it ended.
 */
#ifndef WORKER_E2B_METRICS_H
#define WORKER_E2B_METRICS_H

#include "common/metrics.h"
#include "worker/http_client.h"

void e2b_count_answer(enum metric_operation operation, const struct http_answer *answer);
/* Given up by us before it was answered. */
void e2b_count_cancelled(enum metric_operation operation);
/* It will be sent again. */
void e2b_count_retry(enum metric_operation operation);

#endif
