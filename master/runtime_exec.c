#include "master/runtime_exec.h"

#include "common/log.h"
#include "master/child.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORDS_MAX         160
#define ITEM_MAX_BYTES    300
#define EXIT_CANNOT_EXEC  127
#define LISTEN_FD         3  /* where sd_listen_fds(3) says the first one is */
#define FD_OUT_OF_THE_WAY 10 /* above every number we assign */
#define BYTES_PER_MIB     (1024 * 1024)

/* Nothing sandboxd needs, so nothing it is given. */
static const char *const withheld[] = {"NOTIFY_SOCKET",     "WATCHDOG_USEC",        "WATCHDOG_PID",  "E2B_API_KEY",
                                       "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "LISTEN_FDNAMES"};

struct command_line {
    char *words[WORDS_MAX + 1];
    size_t count;
};

static _Noreturn void fail(const char *what)
{
    log_error("%s: %s", what, strerror(errno));
    _exit(EXIT_CANNOT_EXEC);
}

/* Adds `--option value`; option may be NULL. Nothing is freed: exec does that. */
static void add(struct command_line *line, const char *option, const char *value)
{
    const char *const words[] = {option, value};

    for (size_t i = 0; i < 2; i++) {
        if (words[i] == NULL)
            continue;
        if (line->count == WORDS_MAX) {
            errno = E2BIG;
            fail("command line of sandboxd");
        }
        if ((line->words[line->count++] = strdup(words[i])) == NULL)
            fail("command line of sandboxd");
    }
}

static void add_number(struct command_line *line, const char *option, int64_t value)
{
    char text[24];

    snprintf(text, sizeof text, "%" PRId64, value);
    add(line, option, text);
}

static void build_command_line(struct command_line *line, const struct settings *settings, int ready_fd, int owner_fd)
{
    static const struct {
        enum log_level level;
        const char *name;
    } levels[] = {
        {LOG_LEVEL_ERROR, "error"}, {LOG_LEVEL_WARN, "warn"}, {LOG_LEVEL_INFO, "info"}, {LOG_LEVEL_DEBUG, "debug"}};
    const char *cursor = settings->network_allow;
    char item[ITEM_MAX_BYTES];

    add(line, NULL, settings->sandboxd);
    add_number(line, "--ready-fd", ready_fd);
    add_number(line, "--owner-fd", owner_fd);
    add(line, "--template-dir", settings->template_dir);
    add(line, "--network", settings->network == NETWORK_CHOICE_NONE ? "none" : "internet");
    while (settings_list_next(&cursor, item, sizeof item))
        add(line, "--network-allow", item);
    add_number(line, "--memory-mib", settings->sandbox_memory_bytes / BYTES_PER_MIB);
    add_number(line, "--disk-mib", settings->sandbox_disk_bytes / BYTES_PER_MIB);
    add_number(line, "--processes", settings->sandbox_processes);
    add_number(line, "--cpu-percent", settings->sandbox_cpu_percent);
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        if ((int64_t)levels[i].level == settings->log_level)
            add(line, "--log-level", levels[i].name);
    }
}

/* A copy out of the way of the numbers we assign, which survives exec. */
static int move_up(int fd)
{
    int moved = fcntl(fd, F_DUPFD, FD_OUT_OF_THE_WAY);

    if (moved < 0)
        fail("descriptors of sandboxd");
    return moved;
}

static void set_environment(void)
{
    char pid[16];

    snprintf(pid, sizeof pid, "%d", (int)getpid());
    for (size_t i = 0; i < sizeof withheld / sizeof *withheld; i++)
        unsetenv(withheld[i]);
    if (setenv("LISTEN_FDS", "1", 1) < 0 || setenv("LISTEN_PID", pid, 1) < 0)
        fail("environment of sandboxd");
}

_Noreturn void runtime_exec(const struct settings *settings, int listen_fd, int ready_fd, int owner_fd)
{
    struct command_line line = {.count = 0};
    int ready = move_up(ready_fd), owner = move_up(owner_fd), listening = move_up(listen_fd);
    int keep[] = {LISTEN_FD, ready, owner};

    if (dup2(listening, LISTEN_FD) < 0)
        fail("descriptors of sandboxd");
    build_command_line(&line, settings, ready, owner);
    set_environment();
    setsid(); /* fails only for a group leader, which a fresh child is not */
    child_close_others(keep, sizeof keep / sizeof *keep);
    execv(settings->sandboxd, line.words);
    log_error("cannot run %s: %s", settings->sandboxd, strerror(errno));
    _exit(EXIT_CANNOT_EXEC);
}
