#include "master/preflight.h"

#include "common/descriptors.h"
#include "common/log.h"
#include "common/log_sink.h"
#include "master/child.h"
#include "master/listen.h"
#include "master/pid_file.h"
#include "worker/worker.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROJECT_CHECK_MAX_S 10

bool preflight_wants_local_runtime(const struct settings *settings, const struct environment *environment,
                                   const struct project_store *store)
{
    const char *key = environment_value(environment, "E2B_API_KEY");
    int64_t runtime = settings->runtime != RUNTIME_AUTO ? settings->runtime : project_store_provider(store);

    return runtime == RUNTIME_LOCAL || (runtime == RUNTIME_AUTO && key == NULL);
}

/* A file system that hangs must not hang the master: the alarm ends the child. */
static _Noreturn void check_project_and_exit(const struct settings_load *load, struct project_store *store,
                                             const struct privileges *privileges)
{
    const struct settings *settings = settings_load_values(load);
    struct tls_files *files = NULL;
    bool good, has_files;
    sigset_t none;

    signal(SIGALRM, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    alarm(PROJECT_CHECK_MAX_S);
    has_files = tls_files_read(settings, &files); /* the master reads them */
    privileges_enter(privileges);
    good = worker_check_project(settings->project_dir, settings_load_environment(load), store);
    good = has_files && worker_check_tls(files) && good;
    tls_files_free(files);
    good = worker_check_upstream(settings) && good;
    worker_check_telemetry(settings_load_environment(load));
    _exit(good ? EXIT_SUCCESS : EXIT_FAILURE);
}

bool preflight_check_project(const struct settings_load *load, struct project_store *store,
                             const struct privileges *privileges)
{
    pid_t pid = fork();
    int status;

    if (pid == 0)
        check_project_and_exit(load, store, privileges);
    if (pid < 0) {
        log_error("cannot check the project: %s", strerror(errno));
        return false;
    }
    if (!child_wait(pid, &status))
        return false;
    if (WIFSIGNALED(status))
        log_error("cannot check the project in %s: %s", settings_load_values(load)->project_dir,
                  WTERMSIG(status) == SIGALRM ? "it took too long" : strsignal(WTERMSIG(status)));
    return WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS;
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

/* A file that lines can be appended to; "" is none. */
static bool check_log(const char *setting, const char *path)
{
    int error = *path != '\0' ? log_sink_check(path) : 0;

    if (error != 0)
        log_error("setting %s: %s: %s", setting, path, strerror(error));
    return error == 0;
}

bool preflight_check(const struct settings *settings)
{
    bool good = listeners_check(settings);

    if (!check_log("log_file", settings->log_file) || !check_log("access_log", settings_access_log_file(settings)))
        good = false;
    if (!pid_file_check(settings->pid_file))
        good = false;
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
