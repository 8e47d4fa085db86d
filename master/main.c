/*
 * sandstorm: runs AI agents for the clients of POST /query, each in a fresh sandbox.
 *
 * Exit codes: 0 ended as told, 1 the environment or the configuration is at fault, 2 the command line is; those of
 * `sandstorm status` are in status.h, that of a --check on behalf of a running server in handover.h.
 */
#include "common/log.h"
#include "common/project_store.h"
#include "common/settings.h"
#include "master/handover.h"
#include "master/master.h"
#include "master/preflight.h"
#include "master/state_dir.h"
#include "master/status.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXIT_USAGE 2

/* Descriptor 0 is /dev/null for us and all children; 1 and 2 are never left closed for a socket to take. */
static bool secure_standard_descriptors(void)
{
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null_fd < 0)
        return false;
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        bool is_open = fd != null_fd && fcntl(fd, F_GETFD) >= 0;

        if ((fd == STDIN_FILENO || !is_open) && fd != null_fd && dup2(null_fd, fd) < 0)
            return false;
        if (fd == null_fd && fcntl(fd, F_SETFD, 0) < 0)
            return false;
    }
    if (null_fd > STDERR_FILENO)
        close(null_fd);
    return true;
}

/* Can this program take over from the server that asks? */
static bool check_handover(const struct settings_load *load, int fd)
{
    struct handover *handover = handover_read(fd);
    bool good = handover != NULL && handover_check(handover, load);

    handover_free(handover);
    return good;
}

/* --check: every value and its source on stdout; faults go to the log. */
static int check(const struct settings_load *load)
{
    int offered = handover_offered();
    const struct settings *settings = settings_load_values(load);
    struct project_store *store = project_store_new();
    struct privileges privileges;
    bool good = privileges_resolve(&privileges, settings);

    if (!preflight_check(settings))
        good = false;

    if (store == NULL || !preflight_check_project(load, store, &privileges))
        good = false;
    if (!preflight_raise_descriptors(settings->max_runs))
        good = false;
    state_dir_check(settings->state_dir);
    settings_print(load, stdout);
    printf("\ntimeout (%lld ms) bounds a run; worker_timeout (%lld ms) bounds the silence of a worker's loop.\n"
           "A worker that is busy with a long run is not silent.\n"
           "runtime in effect: %s\n",
           (long long)settings->timeout_ms, (long long)settings->worker_timeout_ms,
           store != NULL && preflight_wants_local_runtime(settings, settings_load_environment(load), store) ? "local"
                                                                                                            : "e2b");
    project_store_free(store);
    if (good && offered >= 0 && !check_handover(load, offered))
        good = false;
    puts(good ? "configuration ok" : "configuration NOT ok");
    if (!good || fflush(stdout) != 0)
        return EXIT_FAILURE;
    return offered >= 0 ? HANDOVER_EXIT_GOOD : EXIT_SUCCESS;
}

/* What the command line asks for, without running the server. Does not free the load. */
static int answer(const struct settings_load *load)
{
    switch (settings_load_action(load)) {
    case SETTINGS_CHECK:
        return check(load);
    case SETTINGS_HELP:
        settings_print_help(stdout);
        return EXIT_SUCCESS;
    case SETTINGS_VERSION:
        puts("sandstorm " SANDSTORM_VERSION);
        return EXIT_SUCCESS;
    case SETTINGS_STATUS:
        return status_print(load);
    case SETTINGS_RUN:
    default:
        log_panic("main: action %d", (int)settings_load_action(load));
    }
}

/* True when the action needs settings without errors. A server that is named by its pid is found without any. */
static bool needs_settings(const struct settings_load *load, bool usage)
{
    switch (settings_load_action(load)) {
    case SETTINGS_RUN:
    case SETTINGS_CHECK:
        return true;
    case SETTINGS_STATUS:
        return usage || settings_load_status(load)->pid == 0;
    case SETTINGS_HELP:
    case SETTINGS_VERSION:
        return false;
    default:
        log_panic("main: action %d", (int)settings_load_action(load));
    }
}

int main(int argc, char *argv[])
{
    struct settings_load *load;
    const char *errors;
    bool usage = false;
    int code;

    log_open("sandstorm");
    if (!secure_standard_descriptors()) {
        log_error("cannot open /dev/null: %s", strerror(errno));
        return EXIT_FAILURE;
    }
    load = settings_load(argc, argv, NULL);
    if (load == NULL) {
        log_error("cannot read the settings: %s", strerror(errno));
        return EXIT_FAILURE;
    }
    errors = settings_load_errors(load, &usage);
    if (needs_settings(load, usage) && *errors != '\0') {
        fputs(errors, stderr);
        settings_load_free(load);
        return usage ? EXIT_USAGE : EXIT_FAILURE;
    }
    if (settings_load_action(load) == SETTINGS_RUN)
        return master_run(argc, argv, load);
    code = answer(load);
    settings_load_free(load);
    return code;
}
