#include "master/upgrade.h"

#include "common/log.h"
#include "master/child.h"
#include "master/handover.h"
#include "master/master_state.h"
#include "master/notify.h"
#include "master/reload.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK_MAX_S      30
#define EXIT_CANNOT_EXEC 127
#define FD_TEXT_BYTES    16

static void refuse(struct master *master, const char *reason)
{
    master->upgrade.state = UPGRADE_NONE;
    log_error("upgrade refused: %s; the server goes on unchanged", reason);
    announce_notice(&master->announcement, "upgrade refused: %s", reason);
}

/* --- what is handed over ------------------------------------------------------------------------ */

static void describe_workers(const struct master *master, struct handover *handover)
{
    size_t cursor = 0;

    for (const struct worker *w; (w = workers_next(master->workers, &cursor)) != NULL;)
        handover->workers[handover->worker_count++] = *w;
}

/* NULL without memory. */
static struct handover *describe(const struct master *master)
{
    struct handover *handover = handover_new();

    if (handover == NULL)
        return NULL;
    handover->generations = master->generations;
    handover->generation = master->current->plan.generation;
    handover->has_auth = *master->current->plan.settings->api_key != '\0';
    handover->scoreboard_fd = master->scoreboard_fd;
    handover->lock_fd = master->state_dir.lock_fd;
    handover->pid_file_fd = master->pid_file.fd;
    handover->listeners = master->listeners;
    snprintf(handover->instance, sizeof handover->instance, "%s", master->instance);
    handover->compactor = master->history.compactor;
    handover->settled_lines = master->history.settled_lines;
    handover->has_runtime = master->runtime != NULL;
    if (master->runtime != NULL)
        runtime_describe(master->runtime, &handover->runtime);
    describe_workers(master, handover);
    handover->fixed = settings_fixed_text(master->current->load);
    return handover;
}

/* Names it to the program that this process, or a child of it, is about to become. */
static bool offer(int fd)
{
    char text[FD_TEXT_BYTES];

    snprintf(text, sizeof text, "%d", fd);
    return setenv(HANDOVER_VARIABLE, text, 1) == 0 && fcntl(fd, F_SETFD, 0) == 0;
}

/* --- the check ---------------------------------------------------------------------------------- */

/* Found as the shell found it: by its path, or in PATH. */
static _Noreturn void become_check(const struct master *master, int handover_fd, int output_fd)
{
    char **words = calloc((size_t)master->argc + 2, sizeof *words);
    int keep[] = {handover_fd};

    if (words == NULL || dup2(output_fd, STDERR_FILENO) < 0 || dup2(STDIN_FILENO, STDOUT_FILENO) < 0 ||
        !offer(handover_fd)) {
        log_error("cannot check %s: %s", master->argv[0], strerror(errno));
        _exit(EXIT_CANNOT_EXEC);
    }
    memcpy(words, master->argv, (size_t)master->argc * sizeof *words);
    words[master->argc] = "--check";
    child_close_others(keep, sizeof keep / sizeof *keep);
    alarm(CHECK_MAX_S); /* exec keeps it */
    execvp(words[0], words);
    log_error("cannot run %s: %s", words[0], strerror(errno));
    free(words);
    _exit(EXIT_CANNOT_EXEC);
}

/* Forks the check of what would be handed over now. False with errno. */
static bool start_check(struct master *master, int handover_fd)
{
    static const int ignored[] = {0};
    int output[2];
    pid_t pid;

    if (pipe2(output, O_CLOEXEC | O_NONBLOCK) < 0)
        return false;
    pid = child_fork(ignored);
    if (pid == 0)
        become_check(master, handover_fd, output[1]);
    close(output[1]);
    if (pid < 0) {
        close(output[0]);
        return false;
    }
    master->upgrade =
        (struct upgrade){.state = UPGRADE_CHECKING, .checker = pid, .output_fd = output[0], .output_bytes = 0};
    return true;
}

static void begin_check(struct master *master)
{
    struct handover *handover = describe(master);
    int fd = handover != NULL ? handover_write(handover) : -1;

    handover_free(handover); /* the text has it all: the child is to have no copy */
    if (fd >= 0 && start_check(master, fd))
        log_info("checking %s before it takes over", master->argv[0]);
    else
        refuse(master, strerror(errno));
    if (fd >= 0)
        close(fd);
}

static void close_output(struct upgrade *upgrade)
{
    if (upgrade->output_fd >= 0)
        close(upgrade->output_fd);
    upgrade->output_fd = -1;
}

/* What does not fit is read and forgotten: the check must not wait for us. */
void upgrade_readable(struct upgrade *upgrade)
{
    char piece[UPGRADE_OUTPUT_MAX_BYTES];
    ssize_t got;

    while (upgrade->output_fd >= 0 && (got = read(upgrade->output_fd, piece, sizeof piece)) != 0) {
        size_t room = sizeof upgrade->output - 1 - upgrade->output_bytes;
        size_t taken;

        if (got < 0 && errno == EAGAIN)
            return;
        if (got < 0 && errno != EINTR)
            break;
        taken = got < 0 ? 0 : (size_t)got < room ? (size_t)got : room;
        memcpy(upgrade->output + upgrade->output_bytes, piece, taken);
        upgrade->output_bytes += taken;
    }
    close_output(upgrade);
}

/* The first error of the output, without what stands before it in a log; else its first line. In place. */
static const char *first_error(char *output)
{
    static const char *const marks[] = {" error: ", "<3>sandstorm: "};

    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        char *found = strstr(output, marks[i]);

        if (found == NULL)
            continue;
        found += strlen(marks[i]);
        found[strcspn(found, "\n")] = '\0';
        return found;
    }
    output[strcspn(output, "\n")] = '\0';
    return output;
}

/* The check was not content, or not able to say so. */
static void refuse_by_check(struct master *master, int status)
{
    char how[CHILD_EXIT_TEXT_BYTES];
    const char *reason = first_error(master->upgrade.output);

    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS)
        reason = "the new program is of a version that cannot take over";
    else if (WIFSIGNALED(status))
        reason = WTERMSIG(status) == SIGALRM ? "the check of the new program took too long"
                                             : child_describe_exit(status, how);
    else if (*reason == '\0')
        reason = child_describe_exit(status, how);
    refuse(master, reason);
}

bool upgrade_reaped(struct master *master, pid_t pid, int status)
{
    struct upgrade *upgrade = &master->upgrade;

    if (upgrade->checker == 0 || pid != upgrade->checker)
        return false;
    upgrade->checker = 0;
    upgrade_readable(upgrade);
    close_output(upgrade);
    if (upgrade->output_bytes > 0 && write(STDERR_FILENO, upgrade->output, upgrade->output_bytes) < 0)
        log_debug("the words of the check are lost: %s", strerror(errno));
    if (WIFEXITED(status) && WEXITSTATUS(status) == HANDOVER_EXIT_GOOD)
        upgrade->state = UPGRADE_CHECKED;
    else
        refuse_by_check(master, status);
    return true;
}

void upgrade_end(struct upgrade *upgrade)
{
    if (upgrade->checker != 0) {
        kill(upgrade->checker, SIGKILL);
        waitpid(upgrade->checker, NULL, 0);
    }
    close_output(upgrade);
    *upgrade = UPGRADE_NONE_YET;
}

/* --- the exec ----------------------------------------------------------------------------------- */

/* Comes back only when the exec failed. */
static void take_over(struct master *master)
{
    struct handover *handover = describe(master);
    int fd = handover != NULL ? handover_write(handover) : -1;
    int saved_errno;

    if (fd < 0) {
        refuse(master, strerror(errno));
        handover_free(handover);
        return;
    }
    log_info("handing over to %s", master->argv[0]);
    notify_reloading();
    handover_keep(handover, true);
    if (offer(fd))
        execvp(master->argv[0], master->argv);
    saved_errno = errno;
    handover_keep(handover, false);
    unsetenv(HANDOVER_VARIABLE);
    close(fd);
    handover_free(handover);
    refuse(master, strerror(saved_errno));
    master_tell_ready(master);
}

/* --- the public side ---------------------------------------------------------------------------- */

bool upgrade_is_under_way(const struct upgrade *upgrade)
{
    return upgrade->state == UPGRADE_CHECKING || upgrade->state == UPGRADE_CHECKED;
}

void upgrade_want(struct master *master)
{
    if (upgrade_is_under_way(&master->upgrade)) {
        log_info("SIGUSR2: an upgrade is under way already");
        return;
    }
    master->upgrade.state = UPGRADE_WANTED;
}

void upgrade_advance(struct master *master)
{
    if (master->upgrade.state == UPGRADE_WANTED && master->next == NULL && reload_has_room(master, "the upgrade"))
        begin_check(master);
    if (master->upgrade.state == UPGRADE_CHECKED)
        take_over(master);
}
