/*
 * run_facts: what the record of a run says (http-api.md section 9), from what the worker knows of it.
 *
 * Each function changes the entry; the caller publishes it.
 */
#ifndef WORKER_RUN_FACTS_H
#define WORKER_RUN_FACTS_H

#include "common/run_table.h"
#include "common/settings.h"
#include "worker/agent_report.h"
#include "worker/project.h"
#include "worker/query_request.h"
#include "worker/run_error.h"

/* At admission. The model in effect is returned by run_model(). */
void run_facts_admitted(struct run_entry *entry, const struct query_request *request, const struct project *project,
                        const struct settings *settings);

/* What its agent said of itself. */
void run_facts_report(struct run_entry *entry, const struct agent_report *report);

/* How it ended. status and text follow from the error: RUN_ERROR_NONE is completed. */
void run_facts_ended(struct run_entry *entry, enum run_error error, const char *message, int64_t duration_us);

/* Of the request, else of the project; NULL: none. Borrowed. */
const json_t *run_model(const struct query_request *request, const struct project *project);

#endif
