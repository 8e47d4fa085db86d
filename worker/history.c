#include "worker/history.h"

#include "common/log.h"
#include "worker/history_file.h"
#include "worker/timer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_MAX_BYTES (4u << 20)
#define BUSY_RETRY_MS   5
#define FAILED_RETRY_MS 5000

struct history {
    struct scoreboard *scoreboard;
    int slot;
    bool is_kept; /* there is a state directory */
    bool fails;   /* the last attempt did, and was told of */
    size_t lost;  /* lines, since then */
    struct history_file file;
    struct evbuffer *queue; /* whole lines */
    struct event *retry;
    struct run_copy copy;
};

/* --- what is told ---------------------------------------------------------------------------------------- */

static void fail(struct history *history, int error)
{
    if (!history->fails)
        log_warn("cannot write %s: %s: runs go on, and their records wait in memory", history->file.path,
                 strerror(error));
    history->fails = true;
    atomic_store(&history->scoreboard->slots[history->slot].history_fails, true);
}

static void recover(struct history *history)
{
    if (!history->fails)
        return;
    log_info("%s is written again; %zu records were lost meanwhile", history->file.path, history->lost);
    history->fails = false;
    history->lost = 0;
    atomic_store(&history->scoreboard->slots[history->slot].history_fails, false);
}

/* --- the queue ------------------------------------------------------------------------------------------- */

/* Bytes of the first line; 0: the queue is empty. */
static size_t first_line(struct evbuffer *queue)
{
    struct evbuffer_ptr end = evbuffer_search_eol(queue, NULL, NULL, EVBUFFER_EOL_LF);

    return end.pos >= 0 ? (size_t)end.pos + 1 : 0;
}

/* Makes room by losing the oldest. */
static void lose_line(struct history *history, size_t length)
{
    fail(history, EAGAIN);
    evbuffer_drain(history->queue, length);
    history->lost++;
}

static void enqueue(struct history *history, struct evbuffer *line)
{
    size_t length = evbuffer_get_length(line), oldest;

    while (evbuffer_get_length(history->queue) + length > QUEUE_MAX_BYTES && (oldest = first_line(history->queue)) > 0)
        lose_line(history, oldest);
    if (evbuffer_add_buffer(history->queue, line) < 0)
        history->lost++;
}

/* Under the lock. False with errno, with the rest still waiting. */
static bool write_lines(struct history *history)
{
    size_t length;

    while ((length = first_line(history->queue)) > 0) {
        const unsigned char *line = evbuffer_pullup(history->queue, (ev_ssize_t)length);

        if (line == NULL) {
            errno = ENOMEM;
            return false;
        }
        if (!history_file_append(&history->file, (const char *)line, length))
            return false;
        evbuffer_drain(history->queue, length);
    }
    return true;
}

static void flush(struct history *history, bool wait)
{
    int error = 0;

    switch (history_file_lock(&history->file, wait)) {
    case HISTORY_BUSY:
        timer_start(history->retry, BUSY_RETRY_MS);
        return;
    case HISTORY_LOCKED:
        error = write_lines(history) ? 0 : errno;
        history_file_unlock(&history->file);
        break;
    case HISTORY_FAILED:
    default:
        error = errno;
    }
    if (error == 0) {
        recover(history);
        return;
    }
    fail(history, error);
    timer_start(history->retry, FAILED_RETRY_MS);
}

static void on_retry(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    flush(context, false);
}

/* --- life ------------------------------------------------------------------------------------------------ */

struct history *history_new(struct event_base *base, struct scoreboard *scoreboard, int slot, const char *state_dir)
{
    struct history *history = calloc(1, sizeof *history);

    if (history == NULL)
        return NULL;
    history->scoreboard = scoreboard;
    history->slot = slot;
    history->is_kept = state_dir != NULL;
    history->file.fd = -1;
    history->queue = evbuffer_new();
    history->retry = evtimer_new(base, on_retry, history);
    if (history->queue == NULL || history->retry == NULL ||
        (history->is_kept && !history_file_init(&history->file, state_dir, scoreboard))) {
        history->is_kept = false;
        history_free(history);
        return NULL;
    }
    if (history->is_kept)
        flush(history, false); /* nothing waits yet, but what is wrong is told before the first run */
    return history;
}

void history_free(struct history *history)
{
    if (history == NULL)
        return;
    if (history->is_kept && evbuffer_get_length(history->queue) > 0) {
        flush(history, true);
        if (evbuffer_get_length(history->queue) > 0)
            log_warn("%zu bytes of records of runs are lost", evbuffer_get_length(history->queue));
    }
    if (history->retry != NULL)
        event_free(history->retry);
    if (history->queue != NULL)
        evbuffer_free(history->queue);
    run_copy_release(&history->copy);
    history_file_release(&history->file);
    free(history);
}

/* --- use ------------------------------------------------------------------------------------------------- */

void history_append(struct history *history, unsigned index)
{
    struct evbuffer *line;
    enum run_read read;

    if (history == NULL || !history->is_kept)
        return;
    line = evbuffer_new();
    read = line != NULL ? history_line_add(history->scoreboard, index, &history->copy, line) : RUN_READ_NO_MEMORY;
    if (read == RUN_READ_OK)
        enqueue(history, line);
    else if (read == RUN_READ_NO_MEMORY)
        history->lost++;
    if (line != NULL)
        evbuffer_free(line);
    if (!history->fails && !evtimer_pending(history->retry, NULL))
        flush(history, false);
}

bool history_works(struct history *history)
{
    if (!history->is_kept)
        return false;
    if (history->fails)
        flush(history, false);
    return !history->fails && history_file_is_writable(&history->file) &&
           !scoreboard_history_fails(history->scoreboard);
}
