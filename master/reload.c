#include "master/reload.h"

#include "common/log.h"
#include "common/project_store.h"
#include "master/announce.h"
#include "master/notify.h"
#include "master/preflight.h"
#include "master/runtime.h"

#include <string.h>
#include <sys/mman.h>

/* Together with the current one and the one that starts they fit into the scoreboard. */
#define RELOAD_OLD_MAX 2

/* --- checks ------------------------------------------------------------------------------------- */

static void log_lines(const char *text)
{
    while (*text != '\0') {
        size_t length = strcspn(text, "\n");

        log_error("%.*s", (int)length, text);
        text += length + (text[length] == '\n');
    }
}

/* Nobody opens a server to everybody by a slip in a file. */
static bool turns_auth_off(const struct master *master, const struct settings_load *load)
{
    return *master->current->plan.settings->api_key != '\0' && *settings_load_values(load)->api_key == '\0';
}

/* A local runtime is started with the server, not by a reload. */
static bool has_runtime_for(const struct master *master, const struct settings_load *load,
                            const struct project_store *store)
{
    const struct worker_plan *plan = &master->current->plan;

    if (master->runtime != NULL ||
        !preflight_wants_local_runtime(settings_load_values(load), settings_load_environment(load), store) ||
        preflight_wants_local_runtime(plan->settings, plan->environment, plan->project_store))
        return true;
    log_error("the configuration now wants the local runtime, which needs a restart");
    return false;
}

/* True when the new settings may take the place of the old; else the reason is in the log. */
static bool may_reload(const struct master *master, const struct settings_load *load, struct project_store *store)
{
    const char *errors, *key = NULL;
    bool usage;

    errors = settings_load_errors(load, &usage);
    if (*errors != '\0') {
        log_lines(errors);
        return false;
    }
    if (!settings_reload_allowed(master->current->load, load, master->runtime != NULL, &key)) {
        log_error("setting %s changed, and needs a restart", key);
        return false;
    }
    if (turns_auth_off(master, load)) {
        log_error("SANDSTORM_API_KEY is gone: serving every client needs a restart");
        return false;
    }
    return preflight_check(settings_load_values(load)) && preflight_check_project(load, store, &master->privileges) &&
           has_runtime_for(master, load, store);
}

bool reload_has_room(struct master *master, const char *what)
{
    unsigned old = workers_other_generations(master->workers, master->current->plan.generation);

    if (old < RELOAD_OLD_MAX) {
        if (master->reload_waits)
            announce_notice(&master->announcement, "%s", "");
        master->reload_waits = false;
        return true;
    }
    if (!master->reload_waits) {
        log_info("%s waits: %u old generations still drain, and no more may", what, old);
        announce_notice(&master->announcement, "%s waits until an old generation has drained", what);
    }
    master->reload_waits = true;
    return false;
}

/* --- steps -------------------------------------------------------------------------------------- */

static void refuse(struct master *master, const char *reason)
{
    log_error("reload refused: the server goes on unchanged");
    announce_notice(&master->announcement, "reload refused: %s", *reason != '\0' ? reason : "see the log");
    master_tell_ready(master);
}

/* Reads and checks everything; with nothing to object to, the new generation starts. The first error goes to reason. */
static void attempt(struct master *master, char *reason, size_t size)
{
    struct settings_load *load = settings_load(master->argc, master->argv, master->current->load);
    struct project_store *store = project_store_new();
    struct listeners listeners;

    log_copy_error(reason, size);
    if (load != NULL && store != NULL && may_reload(master, load, store) &&
        listeners_open(&listeners, settings_load_values(load), &master->listeners)) {
        master->next = master_make_generation(master, load, store, &listeners);
        if (master->next == NULL)
            listeners_close(&listeners, &master->listeners);
        load = NULL;
        store = NULL;
    }
    log_copy_error(NULL, 0);
    settings_load_free(load);
    project_store_free(store);
}

static void begin(struct master *master)
{
    char own[ANNOUNCE_NOTICE_MAX_BYTES], *reason;

    master->reload_wanted = false;
    log_info("reloading");
    notify_reloading();
    /* A child checks part of it, and has its reasons. */
    reason = mmap(NULL, sizeof own, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (reason == MAP_FAILED)
        reason = own;
    attempt(master, reason, sizeof own);
    if (master->next == NULL)
        refuse(master, reason);
    if (reason != own)
        munmap(reason, sizeof own);
}

/* A worker of the new generation died before it was ready. Those that began to serve end in peace. */
static void abandon(struct master *master)
{
    log_error("reload failed: the new workers do not start; the old ones go on");
    announce_notice(&master->announcement, "reload failed: the new workers do not start, see the log");
    listeners_close(&master->next->plan.listeners, &master->listeners);
    generation_retire(master->next, master->workers);
    generation_free(master->next);
    master->next = NULL;
    master_tell_ready(master);
}

/* The new generation serves: the old one drains. */
static void finish(struct master *master)
{
    struct generation *old = master->current;

    master->current = master->next;
    master->next = NULL;
    log_set_level((enum log_level)master->current->plan.settings->log_level);
    if (!log_use_file(master->current->plan.settings->log_file))
        log_error("the master's log goes on to where it was");
    if (master->runtime != NULL)
        runtime_use_settings(master->runtime, master->current->plan.settings);
    log_info("generation %u serves, generation %u drains", master->current->plan.generation, old->plan.generation);
    listeners_close(&old->plan.listeners, &master->current->plan.listeners);
    master->listeners = master->current->plan.listeners;
    generation_retire(old, master->workers);
    generation_free(old);
    announce_notice(&master->announcement, "%s", "");
    master_tell_ready(master);
}

void reload_advance(struct master *master, int64_t now_ms)
{
    if (master->reload_wanted && master->next == NULL && !upgrade_is_under_way(&master->upgrade) &&
        reload_has_room(master, "the reload"))
        begin(master);
    if (master->next == NULL)
        return;
    generation_fill(master->next, master->workers, now_ms);
    if (master->next->state == GENERATION_FAILED)
        abandon(master);
    else if (master->next->state == GENERATION_SERVING)
        finish(master);
}
