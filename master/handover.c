#include "master/handover.h"

#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The version stands in the first line and changes with every change of the text. */
#define FIRST_LINE     "sandstorm-handover 2\n"
#define LAST_LINE      "end"
#define TEXT_MAX_BYTES (1u << 20)

struct handover *handover_new(void)
{
    struct handover *handover = calloc(1, sizeof *handover);

    if (handover == NULL)
        return NULL;
    handover->scoreboard_fd = handover->lock_fd = handover->pid_file_fd = -1;
    handover->runtime = RUNTIME_HANDOVER_NONE;
    return handover;
}

void handover_free(struct handover *handover)
{
    if (handover == NULL)
        return;
    free(handover->fixed);
    free(handover);
}

/* --- writing ------------------------------------------------------------------------------------ */

static void write_worker(const struct worker *w, FILE *out)
{
    fprintf(out, "worker %d %d %d %u %u %d %d %d %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 "\n",
            (int)w->pid, w->slot, w->fd, w->generation, w->seat, (int)w->state, w->was_ready, w->is_unseen,
            w->started_ms, w->deadline_ms, w->graceful_timeout_ms, w->worker_timeout_ms, w->run_limit);
}

static void write_listener(const struct listeners *listeners, size_t index, FILE *out)
{
    fputs("listen ", out);
    listener_write(listeners, index, out);
    fputc('\n', out);
}

static void write_runtime(const struct runtime_handover *r, FILE *out)
{
    fprintf(out, "runtime %d %d %u %" PRId64 " %" PRId64 " %" PRId64 " %d %d %d %d\n", (int)r->state, (int)r->pid,
            r->throttle.early_deaths, r->throttle.not_before_ms, r->started_ms, r->deadline_ms, r->ready_fd,
            r->owner_pipe[0], r->owner_pipe[1], r->socket.fd);
    fprintf(out, "runtime_path %s\nruntime_directory %s\n", r->socket.path, r->socket.directory);
}

static void write_fixed(const char *lines, FILE *out)
{
    while (*lines != '\0') {
        size_t length = strcspn(lines, "\n");

        fprintf(out, "setting %.*s\n", (int)length, lines);
        lines += length + (lines[length] == '\n');
    }
}

static void write_text(const struct handover *handover, FILE *out)
{
    fputs(FIRST_LINE, out);
    fprintf(out,
            "generations %u %u\nauth %d\nscoreboard %d\nlock %d\npid_file %d\ninstance %s\ncompactor %d %" PRIu64 "\n",
            handover->generations, handover->generation, handover->has_auth, handover->scoreboard_fd, handover->lock_fd,
            handover->pid_file_fd, handover->instance, (int)handover->compactor, handover->settled_lines);
    for (size_t i = 0; i < handover->listeners.count; i++)
        write_listener(&handover->listeners, i, out);
    for (size_t i = 0; i < handover->worker_count; i++)
        write_worker(&handover->workers[i], out);
    if (handover->has_runtime)
        write_runtime(&handover->runtime, out);
    write_fixed(handover->fixed != NULL ? handover->fixed : "", out);
    fputs(LAST_LINE "\n", out);
}

int handover_write(const struct handover *handover)
{
    int fd = memfd_create("sandstorm-handover", MFD_CLOEXEC);
    int copy = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
    FILE *out = copy >= 0 ? fdopen(copy, "w") : NULL;

    if (out != NULL) {
        write_text(handover, out);
        if (fclose(out) == 0)
            return fd;
    } else if (copy >= 0) {
        close(copy);
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

/* --- reading ------------------------------------------------------------------------------------ */

static bool read_generations(struct handover *handover, const char *text)
{
    return sscanf(text, "%u %u", &handover->generations, &handover->generation) == 2;
}

static bool read_auth(struct handover *handover, const char *text)
{
    handover->has_auth = strcmp(text, "0") != 0;
    return true;
}

static bool read_scoreboard(struct handover *handover, const char *text)
{
    return sscanf(text, "%d", &handover->scoreboard_fd) == 1;
}

static bool read_lock(struct handover *handover, const char *text)
{
    return sscanf(text, "%d", &handover->lock_fd) == 1;
}

static bool read_pid_file(struct handover *handover, const char *text)
{
    return sscanf(text, "%d", &handover->pid_file_fd) == 1;
}

/* False when it has no room. */
static bool keep_text(char *out, size_t size, const char *text)
{
    return snprintf(out, size, "%s", text) < (int)size;
}

static bool read_instance(struct handover *handover, const char *text)
{
    return keep_text(handover->instance, sizeof handover->instance, text);
}

static bool read_compactor(struct handover *handover, const char *text)
{
    return sscanf(text, "%d %" SCNu64, &handover->compactor, &handover->settled_lines) == 2;
}

static bool read_listen(struct handover *handover, const char *text)
{
    return listener_read(&handover->listeners, text);
}

static bool read_worker(struct handover *handover, const char *text)
{
    struct worker *w = &handover->workers[handover->worker_count];
    int state, was_ready, is_unseen;

    if (handover->worker_count >= SCOREBOARD_SLOTS_MAX ||
        sscanf(text, "%d %d %d %u %u %d %d %d %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64, &w->pid,
               &w->slot, &w->fd, &w->generation, &w->seat, &state, &was_ready, &is_unseen, &w->started_ms,
               &w->deadline_ms, &w->graceful_timeout_ms, &w->worker_timeout_ms, &w->run_limit) != 13)
        return false;
    w->state = (enum child_state)state;
    w->was_ready = was_ready != 0;
    w->is_unseen = is_unseen != 0;
    handover->worker_count++;
    return w->pid > 0 && w->slot >= 0 && w->slot < SCOREBOARD_SLOTS_MAX && w->seat < SETTINGS_WORKERS_MAX &&
           state >= 0 && state < CHILD_STATES;
}

static bool read_runtime(struct handover *handover, const char *text)
{
    struct runtime_handover *r = &handover->runtime;
    int state;

    handover->has_runtime =
        sscanf(text, "%d %d %u %" SCNd64 " %" SCNd64 " %" SCNd64 " %d %d %d %d", &state, &r->pid,
               &r->throttle.early_deaths, &r->throttle.not_before_ms, &r->started_ms, &r->deadline_ms, &r->ready_fd,
               &r->owner_pipe[0], &r->owner_pipe[1], &r->socket.fd) == 10;
    r->state = (enum runtime_state)state;
    return handover->has_runtime && state >= RUNTIME_STARTING && state <= RUNTIME_GONE;
}

static bool read_runtime_path(struct handover *handover, const char *text)
{
    struct runtime_socket *socket = &handover->runtime.socket;

    return keep_text(socket->path, sizeof socket->path, text);
}

static bool read_runtime_directory(struct handover *handover, const char *text)
{
    struct runtime_socket *socket = &handover->runtime.socket;

    return keep_text(socket->directory, sizeof socket->directory, text);
}

static bool read_setting(struct handover *handover, const char *text)
{
    char *before = handover->fixed;

    if (asprintf(&handover->fixed, "%s%s\n", before != NULL ? before : "", text) < 0) {
        handover->fixed = before;
        return false;
    }
    free(before);
    return true;
}

static const struct {
    const char *key;
    bool (*read)(struct handover *handover, const char *text);
} line_table[] = {
    {"generations", read_generations},
    {"auth", read_auth},
    {"scoreboard", read_scoreboard},
    {"lock", read_lock},
    {"pid_file", read_pid_file},
    {"instance", read_instance},
    {"compactor", read_compactor},
    {"listen", read_listen},
    {"worker", read_worker},
    {"runtime", read_runtime},
    {"runtime_path", read_runtime_path},
    {"runtime_directory", read_runtime_directory},
    {"setting", read_setting},
};

static bool read_line(struct handover *handover, char *line)
{
    char *space = strchr(line, ' ');

    if (space == NULL)
        return false;
    *space = '\0';
    for (size_t i = 0; i < sizeof line_table / sizeof *line_table; i++) {
        if (strcmp(line_table[i].key, line) == 0)
            return line_table[i].read(handover, space + 1);
    }
    return false;
}

/* Reads all lines up to the last; false when one is not understood or the last is missing. */
static bool read_lines(struct handover *handover, char *text)
{
    char *rest = text;

    for (char *line; (line = strsep(&rest, "\n")) != NULL;) {
        if (strcmp(line, LAST_LINE) == 0)
            return true;
        if (!read_line(handover, line))
            return false;
    }
    return false;
}

/* The whole text, to be freed; NULL with errno. */
static char *read_text(int fd)
{
    struct stat status;
    char *text;
    ssize_t got;

    if (fstat(fd, &status) < 0)
        return NULL;
    if (status.st_size > TEXT_MAX_BYTES) {
        errno = EFBIG;
        return NULL;
    }
    text = calloc(1, (size_t)status.st_size + 1);
    got = text != NULL ? pread(fd, text, (size_t)status.st_size, 0) : -1;
    if (got == status.st_size)
        return text;
    free(text);
    return NULL;
}

struct handover *handover_read(int fd)
{
    struct handover *handover = handover_new();
    char *text = handover != NULL ? read_text(fd) : NULL;
    const char *fault = NULL;

    if (text == NULL)
        fault = strerror(errno);
    else if (strncmp(text, FIRST_LINE, strlen(FIRST_LINE)) != 0)
        fault = "it is of a version that this program does not know";
    else if (!read_lines(handover, text + strlen(FIRST_LINE)))
        fault = "it is not understood";
    free(text);
    if (fault == NULL)
        return handover;
    log_error("cannot take over from the server before: %s", fault);
    handover_free(handover);
    return NULL;
}

/* --- descriptors -------------------------------------------------------------------------------- */

static void keep_one(int fd, bool keep)
{
    if (fd >= 0 && fcntl(fd, F_SETFD, keep ? 0 : FD_CLOEXEC) < 0)
        log_panic("handover: descriptor %d: %s", fd, strerror(errno));
}

void handover_keep(const struct handover *handover, bool keep)
{
    const struct runtime_handover *runtime = &handover->runtime;
    const int single[] = {handover->scoreboard_fd, handover->lock_fd,      handover->pid_file_fd, runtime->socket.fd,
                          runtime->ready_fd,       runtime->owner_pipe[0], runtime->owner_pipe[1]};

    for (size_t i = 0; i < sizeof single / sizeof *single; i++)
        keep_one(single[i], keep);
    for (size_t i = 0; i < handover->listeners.count; i++)
        keep_one(handover->listeners.fds[i], keep);
    for (size_t i = 0; i < handover->worker_count; i++)
        keep_one(handover->workers[i].fd, keep);
}

int handover_offered(void)
{
    const char *text = getenv(HANDOVER_VARIABLE);
    int fd = -1;

    if (text == NULL || sscanf(text, "%d", &fd) != 1 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        fd = -1;
    unsetenv(HANDOVER_VARIABLE);
    return fd;
}

/* --- checking ----------------------------------------------------------------------------------- */

static const char *next_line(const char *line)
{
    line += strcspn(line, "\n");
    return line + (*line == '\n');
}

/* The line of a text that begins with these bytes; NULL when none does. */
static const char *find_line(const char *text, const char *start, size_t length)
{
    for (; *text != '\0'; text = next_line(text)) {
        if (strncmp(text, start, length) == 0)
            return text;
    }
    return NULL;
}

/* True when no setting of the one text stands with another value in the other. Names each that does. */
static bool has_same_settings(const char *before, const char *now)
{
    bool same = true;

    for (; *before != '\0'; before = next_line(before)) {
        size_t key_length = strcspn(before, "=");
        const char *line = find_line(now, before, key_length + 1);

        if (line == NULL || strncmp(line, before, strcspn(before, "\n") + 1) == 0)
            continue;
        log_error("setting %.*s changed, and needs a restart", (int)key_length, before);
        same = false;
    }
    return same;
}

bool handover_check(const struct handover *handover, const struct settings_load *load)
{
    char *now = settings_fixed_text(load);
    bool good = now != NULL && has_same_settings(handover->fixed != NULL ? handover->fixed : "", now);

    if (now == NULL)
        log_error("cannot compare the settings: %s", strerror(errno));
    free(now);
    if (handover->has_auth && *settings_load_values(load)->api_key == '\0') {
        log_error("SANDSTORM_API_KEY is gone: serving every client needs a restart");
        good = false;
    }
    return good;
}
