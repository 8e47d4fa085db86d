/*
 * A master with a worker of our own in place of the real one, for the tests of the master's life. It runs in a forked
 * process and is seen from outside: by the processes it has, by its words to the service manager, by its exit code.
 *
 * The worker obeys the file `mode` of the test's directory: "serve", "boot" (exits before ready), "mute" (ready, then
 * no heartbeat), "deaf" (ready, ignores what the master says), "project" (the project is bad), "history" (it cannot be
 * restored), "grown" (it grows to eleven lines of one run), "late" (not ready before the mode is another), "spent"
 * (served 1000 runs already).
 */
#ifndef TESTS_UNIT_MASTER_LIFE_H
#define TESTS_UNIT_MASTER_LIFE_H

#include "common/clock.h"
#include "common/scoreboard.h"
#include "master/master.h"
#include "tests/unit/unit.h"
#include "worker/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Longest wait for anything that must happen: generous, for valgrind on a loaded machine. */
#define PATIENCE_MS 20000
#define BEAT_MS     50

static char directory[] = "/tmp/sandstorm-life-XXXXXX";
static char runner_path[64], mode_path[64], config_path[64], notify_path[64], compacted_path[64], state_path[64];

/* --- the worker of these tests ------------------------------------------------------------------ */

static inline bool mode_is(const char *wanted)
{
    char mode[16] = "";
    FILE *in = fopen(mode_path, "r");

    if (in == NULL)
        return false;
    if (fscanf(in, "%15s", mode) != 1)
        *mode = '\0';
    fclose(in);
    return strcmp(mode, wanted) == 0;
}

bool worker_check_project(const char *project_dir, const struct environment *environment, struct project_store *store)
{
    (void)environment;
    (void)project_dir;
    project_store_put(store, NULL, 0, RUNTIME_AUTO);
    return !mode_is("project");
}

bool worker_check_tls(const struct tls_files *files)
{
    return files == NULL; /* the settings name none */
}

bool worker_check_upstream(const struct settings *settings)
{
    return *settings->ca_file == '\0' && *settings->proxy == '\0';
}

void worker_check_telemetry(const struct environment *environment)
{
    (void)environment;
}

bool worker_restore_history(const char *state_dir, struct scoreboard *scoreboard)
{
    assert_string_equal(state_dir, state_path);
    atomic_store(&scoreboard->ended_runs, 1);
    atomic_store(&scoreboard->history_lines, 1);
    return !mode_is("history");
}

bool worker_compact_history(const char *state_dir, struct scoreboard *scoreboard)
{
    int fd = open(compacted_path, O_WRONLY | O_CREAT | O_EXCL, 0600);

    assert_string_equal(state_dir, state_path);
    atomic_store(&scoreboard->history_lines, 1);
    return fd >= 0;
}

int worker_main(const struct worker_context *context)
{
    const char ready = WORKER_SAYS_READY;
    struct worker_slot *slot = &context->scoreboard->slots[context->slot];
    bool is_mute = mode_is("mute"), is_deaf = mode_is("deaf"), is_spent = mode_is("spent");

    if (mode_is("grown"))
        atomic_store(&context->scoreboard->history_lines, 11);
    if (mode_is("boot"))
        return WORKER_EXIT_BOOT;
    while (mode_is("late") && getppid() != 1)
        poll(NULL, 0, BEAT_MS / 5);
    if (send(context->master_fd, &ready, 1, MSG_NOSIGNAL) != 1)
        return WORKER_EXIT_FAILED;
    for (;;) {
        struct pollfd fd = {.fd = context->master_fd, .events = POLLIN};
        char said = 0;

        if (is_mute || is_deaf)
            poll(NULL, 0, BEAT_MS);
        else if (poll(&fd, 1, BEAT_MS) > 0 && recv(context->master_fd, &said, 1, 0) >= 0 && said != MASTER_SAYS_ELECTED)
            return WORKER_EXIT_OK; /* nothing to drain: every other order, and the master's death, means go */
        if (getppid() == 1 && is_deaf)
            return WORKER_EXIT_FAILED;
        if (is_spent && !mode_is("spent"))
            atomic_store(&slot->ended_runs, 1000);
        if (!is_mute)
            atomic_store(&slot->heartbeat_ms, monotonic_ms());
    }
}

/* --- seen from outside -------------------------------------------------------------------------- */

struct server {
    pid_t pid;
    int notify_fd; /* what it tells its service manager */
};

static inline void write_file(const char *path, const char *text)
{
    char fresh[80];
    FILE *out;

    snprintf(fresh, sizeof fresh, "%s.new", path);
    out = fopen(fresh, "w");
    assert_non_null(out);
    fputs(text, out);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(rename(fresh, path), 0);
}

/* Starts a master that serves with the fake worker. */
static inline struct server start_server(const char *mode)
{
    struct server server;
    char settings[80]; /* nobody is taken for silent who is only late */
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char *const words[] = {"sandstorm", "--config",   config_path, "--bind",    "127.0.0.1:0", "--agent-runner",
                           runner_path, "--max-runs", "10",        "--runtime", "e2b",         "--project-dir",
                           directory,   NULL};

    unlink(notify_path);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", notify_path);
    server.notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server.notify_fd, (struct sockaddr *)&address, sizeof address), 0);
    setenv("NOTIFY_SOCKET", notify_path, 1);
    write_file(mode_path, mode);
    snprintf(settings, sizeof settings, "workers = 2\ngraceful_timeout = 60\nworker_timeout = %d\n",
             strcmp(mode, "mute") == 0 ? 2 : PATIENCE_MS / 1000);
    write_file(config_path, settings);
    server.pid = fork();
    assert_true(server.pid >= 0);
    if (server.pid == 0)
        exit(master_run(COUNT(words) - 1, words, settings_load(COUNT(words) - 1, words, NULL)));
    return server;
}

/* Waits for a datagram that begins with these words and holds those; "" holds always. */
static inline void expect_told_of(const struct server *server, const char *wanted, const char *part)
{
    int64_t until_ms = monotonic_ms() + PATIENCE_MS;
    char told[1024] = "";

    while (monotonic_ms() < until_ms) {
        struct pollfd fd = {.fd = server->notify_fd, .events = POLLIN};
        ssize_t n;

        if (poll(&fd, 1, BEAT_MS) <= 0)
            continue;
        n = recv(server->notify_fd, told, sizeof told - 1, 0);
        told[n > 0 ? n : 0] = '\0';
        if (strncmp(told, wanted, strlen(wanted)) == 0 && strstr(told, part) != NULL)
            return;
    }
    fail_msg("not told \"%s\" with \"%s\"; last heard: %s", wanted, part, told);
}

static inline void expect_told(const struct server *server, const char *wanted)
{
    expect_told_of(server, wanted, "");
}

/* The children of a process, at most `max`; returns how many. */
static inline size_t children_of(pid_t pid, pid_t *out, size_t max)
{
    char path[64];
    size_t count = 0;
    FILE *in;

    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid, (int)pid);
    in = fopen(path, "r");
    if (in == NULL)
        return 0;
    while (count < max && fscanf(in, "%d", &out[count]) == 1)
        count++;
    fclose(in);
    return count;
}

/* Waits until the master has `count` children and none of them is `gone`. Returns the first. */
static inline pid_t expect_children(const struct server *server, size_t count, pid_t gone)
{
    int64_t until_ms = monotonic_ms() + PATIENCE_MS;
    pid_t children[16] = {0};
    size_t found = 0;

    while (monotonic_ms() < until_ms) {
        bool seen = false;

        found = children_of(server->pid, children, COUNT(children));
        for (size_t i = 0; i < found; i++)
            seen = seen || children[i] == gone;
        if (found == count && !seen)
            return children[0];
        poll(NULL, 0, BEAT_MS / 5);
    }
    fail_msg("%zu children instead of %zu", found, count);
    return -1;
}

static inline void expect_exit(struct server *server, int code)
{
    int64_t until_ms = monotonic_ms() + 2 * PATIENCE_MS;
    int status = -1;
    pid_t reaped = 0;

    while (reaped == 0 && monotonic_ms() < until_ms) {
        reaped = waitpid(server->pid, &status, WNOHANG);
        poll(NULL, 0, BEAT_MS / 5);
    }
    close(server->notify_fd);
    assert_int_equal(reaped, server->pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), code);
}

/* --- the directory of a test ------------------------------------------------------------------- */

static inline int set_up(void **state)
{
    (void)state;
    if (mkdtemp(directory) == NULL || setenv("SANDSTORM_USER", "root", 1) < 0) /* if the tests are */
        return -1;
    snprintf(runner_path, sizeof runner_path, "%s/runner.mjs", directory);
    snprintf(mode_path, sizeof mode_path, "%s/mode", directory);
    snprintf(config_path, sizeof config_path, "%s/sandstorm.conf", directory);
    snprintf(notify_path, sizeof notify_path, "%s/notify", directory);
    snprintf(compacted_path, sizeof compacted_path, "%s/compacted", directory);
    snprintf(state_path, sizeof state_path, "%s/.sandstorm", directory);
    write_file(runner_path, "// not run here\n");
    return 0;
}

static inline int tear_down(void **state)
{
    char lock_path[96], instance_path[96];
    const char *const made[] = {runner_path,    mode_path, config_path,  notify_path,
                                compacted_path, lock_path, instance_path};

    (void)state;
    snprintf(lock_path, sizeof lock_path, "%s/lock", state_path);
    snprintf(instance_path, sizeof instance_path, "%s/instance", state_path);
    for (size_t i = 0; i < COUNT(made); i++)
        unlink(made[i]);
    return rmdir(state_path) | rmdir(directory);
}

#endif
