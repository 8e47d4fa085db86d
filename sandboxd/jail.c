#include "sandboxd/jail.h"
#include "sandboxd/jail_internal.h"

#include "common/log.h"
#include "sandboxd/cgroups.h"
#include "sandboxd/seccomp_filter.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BWRAP "/usr/bin/bwrap"
/* The preferred first host uid of sandboxes: far from the uids that people and packages get. */
#define UID_BASE_PREFERRED 2000000000u
#define FIRST_FREE_FD      3
/* Of 1,000. */
#define OOM_SCORE_ADJUST 500

struct jail {
    char init_path[PATH_MAX];
    struct jail_limits limits;
    struct cgroups *cgroups; /* NULL: none to be had */
    void *seccomp;
    size_t seccomp_bytes;
    bool is_root;
    uid_t uid_base;
    bool slots[JAIL_SLOTS_MAX];
};

/* Writes the reason, with errno's text when it is set; returns false for the caller to return. */
__attribute__((format(printf, 2, 3))) static bool fail(char error[static JAIL_ERROR_MAX_BYTES], const char *format, ...)
{
    int reason = errno;
    va_list args;
    int used;

    va_start(args, format);
    used = vsnprintf(error, JAIL_ERROR_MAX_BYTES, format, args);
    va_end(args);
    if (reason != 0 && used >= 0 && used < JAIL_ERROR_MAX_BYTES)
        snprintf(error + used, JAIL_ERROR_MAX_BYTES - (size_t)used, ": %s", strerror(reason));
    return false;
}

/* The first uid of a range that this process can use: in a container not all uids exist. 0 when there is none. */
static uid_t choose_uid_base(void)
{
    FILE *map = fopen("/proc/self/uid_map", "re");
    unsigned long inside, outside, count;
    uid_t best = 0;

    if (map == NULL)
        return UID_BASE_PREFERRED;
    while (fscanf(map, "%lu %lu %lu", &inside, &outside, &count) == 3) {
        unsigned long end = inside + count;

        if (count <= JAIL_SLOTS_MAX)
            continue;
        best = end > UID_BASE_PREFERRED + JAIL_SLOTS_MAX ? UID_BASE_PREFERRED : (uid_t)(end - JAIL_SLOTS_MAX - 2);
    }
    fclose(map);
    return best;
}

/* Takes cgroups where there are some, and says once what limits sandboxes. */
static void limit_by_cgroups(struct jail *jail)
{
    char reason[JAIL_ERROR_MAX_BYTES];

    jail->cgroups = cgroups_new(&jail->limits, reason);
    if (jail->cgroups != NULL)
        log_info("limits of sandboxes: %s", cgroups_words(jail->cgroups));
    else
        log_info("limits of sandboxes: rlimits, each process by itself: %s", reason);
}

struct jail *jail_new(const char *init_path, const struct jail_limits *limits, char error[static JAIL_ERROR_MAX_BYTES])
{
    struct jail *jail = calloc(1, sizeof *jail);

    errno = 0;
    if (jail == NULL || realpath(init_path, jail->init_path) == NULL || access(jail->init_path, X_OK) < 0) {
        (void)fail(error, "sandbox-init %s", init_path);
    } else if (access(BWRAP, X_OK) < 0) {
        (void)fail(error, BWRAP " (install the package bubblewrap)");
    } else if (!seccomp_filter_export(&jail->seccomp, &jail->seccomp_bytes)) {
        (void)fail(error, "seccomp filter");
    } else {
        jail->limits = *limits;
        jail->is_root = geteuid() == 0;
        jail->uid_base = jail->is_root ? choose_uid_base() : 0;
        if (!jail->is_root || jail->uid_base != 0) {
            limit_by_cgroups(jail);
            return jail;
        }
        errno = 0;
        (void)fail(error, "no range of %d uids for sandboxes in /proc/self/uid_map", JAIL_SLOTS_MAX);
    }
    jail_free(jail);
    return NULL;
}

void jail_free(struct jail *jail)
{
    if (jail == NULL)
        return;
    cgroups_free(jail->cgroups);
    free(jail->seccomp);
    free(jail);
}

/* What a child needs between fork and exec. */
struct start {
    const struct jail *jail;
    struct jail_sources sources;
    struct jail_arguments arguments;
    int control_fd; /* init's end */
    int stderr_fd;  /* bwrap's end */
    uid_t uid;
    unsigned slot;
};

/* In the child: says on the pipe what failed, and ends. */
static _Noreturn void child_fail(const char *what)
{
    dprintf(STDERR_FILENO, "%s: %s\n", what, strerror(errno));
    _exit(1);
}

/* In the child: where memory is short, a sandbox's process goes before any of the host's. Failing that is no harm. */
static void child_give_way(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    dprintf(fd, "%d", OOM_SCORE_ADJUST);
    close(fd);
}

/* In the child of root: becomes the sandbox's own host user. */
static void child_drop_root(const struct start *start)
{
    const char *failed = jail_mounts_prepare(&start->sources);

    if (failed != NULL)
        child_fail(failed);
    if (setgroups(0, NULL) < 0 || setresgid(start->uid, start->uid, start->uid) < 0 ||
        setresuid(start->uid, start->uid, start->uid) < 0)
        child_fail("cannot take the uid of the sandbox");
}

/* In the child: writes a line to a file of /proc/self. */
static void child_write(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        child_fail(path);
    close(fd);
}

/* In the child of an ordinary user: namespaces in which it may mount, the user staying who he is. */
static void child_stage(const struct start *start)
{
    char uid_map[64], gid_map[64];
    const char *failed;

    snprintf(uid_map, sizeof uid_map, "%u %u 1", getuid(), getuid());
    snprintf(gid_map, sizeof gid_map, "%u %u 1", getgid(), getgid());
    if (unshare(CLONE_NEWUSER) < 0)
        child_fail("a user namespace for the template's /usr");
    child_write("/proc/self/setgroups", "deny");
    child_write("/proc/self/uid_map", uid_map);
    child_write("/proc/self/gid_map", gid_map);
    failed = jail_mounts_prepare(&start->sources);
    if (failed != NULL)
        child_fail(failed);
}

/* In the child: standard descriptors, and nothing else but what bwrap is to have. */
static void child_descriptors(const struct start *start)
{
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0 || dup2(start->stderr_fd, STDOUT_FILENO) < 0 ||
        dup2(start->stderr_fd, STDERR_FILENO) < 0)
        child_fail("standard descriptors");
    if (close_range(FIRST_FREE_FD, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
        child_fail("close_range");
    for (size_t i = 0; i < start->arguments.fd_count; i++)
        fcntl(start->arguments.fds[i], F_SETFD, 0);
    fcntl(start->arguments.args_fd, F_SETFD, 0);
    fcntl(start->control_fd, F_SETFD, 0);
}

static bool limits_memory_by_cgroup(const struct jail *jail)
{
    return jail->cgroups != NULL && cgroups_limit_memory(jail->cgroups);
}

/* In the child: becomes bwrap, with no environment. */
static _Noreturn void child_exec(const struct start *start)
{
    char args_fd[16], control_fd[16], processes[16], data_bytes[32], file_bytes[32];
    char *const argv[] = {"bwrap",    "--args",  args_fd,    "--",       "/run/sandbox-init",
                          control_fd, processes, data_bytes, file_bytes, (char *)NULL};
    char *const no_environment[] = {NULL};
    const struct jail_limits *limits = &start->jail->limits;

    snprintf(args_fd, sizeof args_fd, "%d", start->arguments.args_fd);
    snprintf(control_fd, sizeof control_fd, "%d", start->control_fd);
    snprintf(processes, sizeof processes, "%u", limits->processes);
    /* Where the whole sandbox is limited, a program may reserve more than it uses. */
    snprintf(data_bytes, sizeof data_bytes, "%llu",
             limits_memory_by_cgroup(start->jail) ? 0 : (unsigned long long)limits->memory_mib << 20);
    snprintf(file_bytes, sizeof file_bytes, "%llu", jail_file_limit_bytes(limits));
    execve(BWRAP, argv, no_environment);
    child_fail(BWRAP);
}

/* In the child: everything up to bwrap. No signal was delivered since the fork: they are blocked. */
static _Noreturn void child_main(const struct start *start)
{
    sigset_t none;

    signal(SIGPIPE, SIG_DFL);
    signal(SIGCHLD, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    dup2(start->stderr_fd, STDERR_FILENO);
    if (start->jail->cgroups != NULL && !cgroups_enter(start->jail->cgroups, start->slot))
        child_fail("cgroup of the sandbox");
    child_give_way();
    if (start->jail->is_root)
        child_drop_root(start);
    else if (start->sources.is_staged)
        child_stage(start);
    child_descriptors(start);
    child_exec(start);
}

/* Forks with all signals blocked, so that no handler of ours runs in the child. */
static pid_t fork_child(const struct start *start)
{
    sigset_t all, before;
    pid_t pid;

    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    pid = fork();
    if (pid == 0)
        child_main(start);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return pid;
}

/* Makes our end of the control socket one that never blocks and tells who sent. */
static bool prepare_control(int fd)
{
    int on = 1;

    return setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0 && fcntl(fd, F_SETFL, O_NONBLOCK) == 0;
}

/* Makes socket, pipe and process. The ends of the child are closed here, ours on failure too. */
static bool launch(struct start *start, struct jail_process *process)
{
    int control[2] = {-1, -1}, errors[2] = {-1, -1};

    process->pid = -1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) == 0 && prepare_control(control[0]) &&
        pipe2(errors, O_CLOEXEC) == 0 && fcntl(errors[0], F_SETFL, O_NONBLOCK) == 0) {
        start->control_fd = control[1];
        start->stderr_fd = errors[1];
        process->pid = fork_child(start);
    }
    process->control_fd = control[0];
    process->stderr_fd = errors[0];
    for (int i = process->pid < 0 ? 0 : 1; i < 2; i++) {
        int reason = errno;

        if (control[i] >= 0)
            close(control[i]);
        if (errors[i] >= 0)
            close(errors[i]);
        errno = reason;
    }
    return process->pid >= 0;
}

/* Takes a free slot; JAIL_SLOTS_MAX when there is none. */
static unsigned take_slot(struct jail *jail)
{
    for (unsigned slot = 0; slot < JAIL_SLOTS_MAX; slot++) {
        if (!jail->slots[slot]) {
            jail->slots[slot] = true;
            return slot;
        }
    }
    return JAIL_SLOTS_MAX;
}

/* Whether a template has files that are laid over those of /usr. */
static bool has_usr(const char *template_folder)
{
    char path[PATH_MAX];

    return template_folder != NULL && snprintf(path, sizeof path, "%s/root/usr", template_folder) < (int)sizeof path &&
           access(path, F_OK) == 0;
}

bool jail_start(struct jail *jail, const char *template_folder, struct jail_process *process,
                char error[static JAIL_ERROR_MAX_BYTES])
{
    struct start start = {.jail = jail, .sources = {.init_path = jail->init_path, .template_folder = template_folder}};
    bool started = false;

    errno = 0;
    process->slot = take_slot(jail);
    if (process->slot == JAIL_SLOTS_MAX)
        return fail(error, "all %d sandboxes are in use", JAIL_SLOTS_MAX);
    start.uid = jail->uid_base + process->slot;
    start.slot = process->slot;
    start.sources.has_usr = has_usr(template_folder);
    start.sources.is_staged = jail->is_root || start.sources.has_usr;
    if (!jail_arguments_build(&start.arguments, &start.sources, &jail->limits, jail->seccomp, jail->seccomp_bytes))
        (void)fail(error, "arguments of bwrap");
    else if (jail->cgroups != NULL && !cgroups_make(jail->cgroups, process->slot))
        (void)fail(error, "cgroup of the sandbox");
    else if (!launch(&start, process))
        (void)fail(error, "start of bwrap");
    else
        started = true;
    jail_arguments_free(&start.arguments);
    if (!started)
        jail_release(jail, process->slot);
    return started;
}

void jail_release(struct jail *jail, unsigned slot)
{
    if (slot >= JAIL_SLOTS_MAX)
        log_panic("jail slot %u does not exist", slot);
    else if (!jail->slots[slot])
        log_panic("jail slot %u released twice", slot);
    if (jail->cgroups != NULL)
        cgroups_remove(jail->cgroups, slot);
    jail->slots[slot] = false;
}

void jail_balance(struct jail *jail)
{
    if (jail->cgroups != NULL)
        cgroups_balance(jail->cgroups, jail->slots);
}

void jail_give(const struct jail *jail, unsigned slot, int fd)
{
    uid_t uid = jail->uid_base + slot;

    if (jail->is_root && fchown(fd, uid, uid) < 0)
        log_warn("pipe of a command cannot be given to uid %u: %s", uid, strerror(errno));
}

/* Reads a number from a file of /proc/sys; -1 when it is not there. */
static long read_setting(const char *path)
{
    FILE *file = fopen(path, "re");
    long value = -1;

    if (file == NULL)
        return -1;
    if (fscanf(file, "%ld", &value) != 1)
        value = -1;
    fclose(file);
    return value;
}

const char *jail_advice(void)
{
    /* What forbids user namespaces, and how to allow them. */
    static const struct {
        const char *path;
        long forbidding;
        const char *advice;
    } settings[] = {
        {"/proc/sys/kernel/unprivileged_userns_clone", 0,
         "user namespaces are forbidden to ordinary users: sysctl -w kernel.unprivileged_userns_clone=1"},
        {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", 1,
         "AppArmor forbids user namespaces to ordinary users: give " BWRAP
         " an AppArmor profile with the rule 'userns,' "
         "or sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"},
        {"/proc/sys/user/max_user_namespaces", 0,
         "no user namespaces are allowed: sysctl -w user.max_user_namespaces=15000"},
    };

    if (access(BWRAP, X_OK) < 0)
        return BWRAP " is missing: install the package bubblewrap";
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        if (read_setting(settings[i].path) == settings[i].forbidding)
            return settings[i].advice;
    }
    return NULL;
}
