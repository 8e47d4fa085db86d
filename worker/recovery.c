#include "worker/recovery.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/log_limit.h"
#include "common/metrics.h"
#include "worker/own_service.h"
#include "worker/run_facts.h"
#include "worker/sandbox_list.h"

#include <stdlib.h>
#include <string.h>

/* A sandbox younger than this may belong to a run that is not in the table yet (16.5). */
#define YOUNG_US        (60 * INT64_C(1000000))
#define SECOND_LOOK_MS  65000 /* by then what was young at the start is not any more */
#define NEXT_LOOK_MS    600000
#define LEFTOVER_TTL_MS 3600000 /* how long a deletion is tried: its own time to live is not known */
#define WORKER_LOST     "the worker of this run died"

/* One listing: of the cloud, of the local runtime. */
struct look {
    struct recovery *recovery;
    struct e2b_service *service;
    struct sandbox_list *listing; /* NULL: none under way */
};

struct recovery {
    struct run_host *host;
    const char *local_socket;
    const struct environment *environment;
    struct look looks[2];
};

#define LOOKS (sizeof((struct recovery *)NULL)->looks / sizeof(struct look))

struct recovery *recovery_new(struct run_host *host, const char *local_socket, const struct environment *environment)
{
    struct recovery *recovery = calloc(1, sizeof *recovery);

    if (recovery == NULL)
        return NULL;
    recovery->host = host;
    recovery->local_socket = local_socket;
    recovery->environment = environment;
    for (size_t i = 0; i < LOOKS; i++)
        recovery->looks[i].recovery = recovery;
    return recovery;
}

static void end_look(struct look *look)
{
    sandbox_list_cancel(look->listing);
    look->listing = NULL;
    e2b_service_unref(look->service);
    look->service = NULL;
}

void recovery_free(struct recovery *recovery)
{
    if (recovery == NULL)
        return;
    for (size_t i = 0; i < LOOKS; i++)
        end_look(&recovery->looks[i]);
    free(recovery);
}

/* The service with the server's own key; NULL: there is none. The caller's. */
static struct e2b_service *own_service(const struct recovery *recovery, bool is_local)
{
    if (is_local)
        return recovery->local_socket != NULL ? e2b_service_local(recovery->local_socket) : NULL;
    return own_cloud_service(recovery->host->project_dir, recovery->environment);
}

/* --- the dead workers ------------------------------------------------------------------------------------ */

/* Its model is known only from the table. */
static void count_end(const struct run_entry *entry, enum run_error error)
{
    struct run_copy copy = {.text = NULL};
    size_t length = 0;
    const char *text = run_table_read(entry->scoreboard, entry->index, &copy) == RUN_READ_OK
                           ? run_copy_string(&copy, RUN_STRING_MODEL, &length)
                           : NULL;
    char *model = text != NULL ? strndup(text, length) : NULL;

    metrics_run_ended(&(struct metrics_run){.model = model,
                                            .status = (enum run_status)entry->record.status,
                                            .error_code = run_error_code(error),
                                            .duration_us = entry->record.duration_us,
                                            .agent_us = -1});
    free(model);
    run_copy_release(&copy);
}

static void end_run(struct recovery *recovery, struct run_orphan *orphan, const char *run_id)
{
    struct run_entry *entry = &orphan->entry;
    int64_t duration_us = realtime_us() - entry->record.started_us;
    enum run_error error = orphan->was_cancelled ? RUN_ERROR_CANCELLED : RUN_ERROR_WORKER_LOST;

    run_facts_ended(entry, error, orphan->was_cancelled ? RUN_CANCELLED_TEXT : WORKER_LOST,
                    duration_us > 0 ? duration_us : 0);
    run_entry_publish(entry);
    history_append(recovery->host->history, entry->index); /* while it cannot be forgotten */
    count_end(entry, error);
    run_entry_end(entry);
    log_warn("run %s ended outcome=%s code=%s: its worker died", run_id,
             run_status_name((enum run_status)entry->record.status), run_error_code(error));
}

static void see_to_sandbox(struct recovery *recovery, const struct run_orphan *orphan, const char *run_id)
{
    struct run_host *host = recovery->host;
    struct run_lease_name lease = run_entry_lease_name(&orphan->entry);
    struct e2b_service *service = orphan->is_foreign ? NULL : own_service(recovery, orphan->entry.record.is_local);

    if (service == NULL) {
        log_error("run %s: sandbox %s is left to its time to live: %s", run_id,
                  *orphan->sandbox_id != '\0' ? orphan->sandbox_id : "(unknown)",
                  orphan->is_foreign ? "the key it was made with died with its worker" : "there is no key for it");
        run_lease_clear(host->scoreboard, lease);
        return;
    }
    if (orphan->lease == RUN_LEASE_CREATING) {
        int64_t until_ms = orphan->expires_ms > 0 ? orphan->expires_ms : monotonic_ms() + STRAY_SEARCH_MS;

        run_lease_creating(host->scoreboard, lease, until_ms);
        stray_search_add(host->strays, &(struct stray_order){.service = service,
                                                             .run_id = run_id,
                                                             .until_ms = until_ms,
                                                             .expires_ms = monotonic_ms() + LEFTOVER_TTL_MS,
                                                             .lease = lease});
    } else {
        metrics_add(METRIC_LEAKS_REAPED, 1);
        kill_queue_add(host->kills, &(struct kill_order){.service = service,
                                                         .sandbox_id = orphan->sandbox_id,
                                                         .run_id = run_id,
                                                         .expires_ms = orphan->expires_ms,
                                                         .lease = lease});
    }
    e2b_service_unref(service);
}

static void adopt(struct recovery *recovery)
{
    struct run_host *host = recovery->host;
    struct run_orphan orphan;
    unsigned cursor = 0;

    while (run_table_adopt(host->scoreboard, host->serial, &cursor, &orphan)) {
        char run_id[RUN_ID_DIGITS + 1];

        run_id_format(orphan.entry.record.id, run_id);
        if (orphan.was_live)
            end_run(recovery, &orphan, run_id);
        if (orphan.lease != RUN_LEASE_NONE)
            see_to_sandbox(recovery, &orphan, run_id);
    }
}

/* --- sandboxes that no run knows ------------------------------------------------------------------------- */

static void on_sandbox(void *context, const struct listed_sandbox *sandbox)
{
    struct look *look = context;
    struct run_host *host = look->recovery->host;
    uint64_t id;

    if (realtime_us() - sandbox->started_us < YOUNG_US)
        return;
    if (run_id_parse(sandbox->run_id, strlen(sandbox->run_id), &id) && run_table_needs_sandbox(host->scoreboard, id))
        return;
    if (kill_queue_has(host->kills, sandbox->id)) /* found before */
        return;
    metrics_add(METRIC_LEAKS_REAPED, 1);
    log_warn_limited("sandbox %s of this instance belongs to no run: deleting it", sandbox->id);
    kill_queue_add(host->kills, &(struct kill_order){.service = look->service,
                                                     .sandbox_id = sandbox->id,
                                                     .run_id = "-",
                                                     .expires_ms = monotonic_ms() + LEFTOVER_TTL_MS});
}

static void on_listed(void *context, const char *error)
{
    struct look *look = context;

    look->listing = NULL;
    if (error != NULL)
        log_warn_limited("cannot look for sandboxes of this instance that no run knows: %s", error);
    end_look(look);
}

static void start_look(struct look *look, bool is_local)
{
    struct run_host *host = look->recovery->host;
    const struct sandbox_list_handlers handlers = {.on_sandbox = on_sandbox, .on_end = on_listed, .context = look};

    if (look->listing != NULL)
        return;
    look->service = own_service(look->recovery, is_local);
    if (look->service != NULL)
        look->listing = sandbox_list_start(host->http, look->service, host->instance, NULL, &handlers);
    if (look->listing == NULL)
        end_look(look);
}

/* The turn is taken once by one worker. */
static bool is_our_turn(struct scoreboard *scoreboard)
{
    int64_t now_ms = monotonic_ms();
    int64_t due_ms = atomic_load(&scoreboard->reconcile_due_ms);
    int64_t next_ms = now_ms + (due_ms == 0 ? SECOND_LOOK_MS : NEXT_LOOK_MS);

    return now_ms >= due_ms && atomic_compare_exchange_strong(&scoreboard->reconcile_due_ms, &due_ms, next_ms);
}

void recovery_tick(struct recovery *recovery)
{
    adopt(recovery);
    if (!is_our_turn(recovery->host->scoreboard))
        return;
    for (size_t i = 0; i < LOOKS; i++)
        start_look(&recovery->looks[i], i > 0);
}
