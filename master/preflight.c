#include "master/preflight.h"

#include "common/log.h"
#include "master/listen.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* A run holds its client's and its sandbox's connection; all runs of an instance may meet in one worker. */
#define DESCRIPTORS_PER_RUN 2
/* Listening sockets, resolver, health probes, deletions of ended runs, connections not yet admitted. */
#define DESCRIPTORS_RESERVE 256

bool preflight_wants_local_runtime(const struct settings *settings, const struct environment *environment)
{
    const char *key = environment_value(environment, "E2B_API_KEY");

    return settings->runtime == RUNTIME_LOCAL || (settings->runtime == RUNTIME_AUTO && key == NULL);
}

/* A regular file this process may use as mode says (R_OK, X_OK). */
static bool check_file(const char *setting, const char *path, int mode)
{
    const char *reason = NULL;
    struct stat status;

    if (*path == '\0')
        reason = "not set, and not found beside the program";
    else if (stat(path, &status) < 0 || access(path, mode) < 0)
        reason = strerror(errno);
    else if (!S_ISREG(status.st_mode))
        reason = "not a file";
    if (reason == NULL)
        return true;
    log_error("setting %s: %s%s%s", setting, path, *path != '\0' ? ": " : "", reason);
    return false;
}

bool preflight_check(const struct settings *settings)
{
    bool good = listeners_check(settings->bind);

    if (!check_file("agent_runner", settings->agent_runner, R_OK))
        good = false;
    if (settings->runtime == RUNTIME_LOCAL && !check_file("sandboxd", settings->sandboxd, X_OK))
        good = false;
    return good;
}

bool preflight_raise_descriptors(int64_t max_runs)
{
    int64_t needed = max_runs * DESCRIPTORS_PER_RUN + DESCRIPTORS_RESERVE;
    struct rlimit limit;
    int64_t fitting;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) {
        log_error("cannot read the limit of open files: %s", strerror(errno));
        return false;
    }
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0) {
        log_error("cannot raise the limit of open files: %s", strerror(errno));
        return false;
    }
    if (limit.rlim_max >= (rlim_t)needed)
        return true;
    fitting = ((int64_t)limit.rlim_max - DESCRIPTORS_RESERVE) / DESCRIPTORS_PER_RUN;
    log_error("max_runs = %" PRId64 " needs %" PRId64 " open files in a worker, and the hard limit is %" PRIu64
              ": raise it (ulimit -Hn, LimitNOFILE=) or set max_runs to %" PRId64 " or less",
              max_runs, needed, (uint64_t)limit.rlim_max, fitting > 0 ? fitting : 0);
    return false;
}
