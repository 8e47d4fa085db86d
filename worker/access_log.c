#include "worker/access_log.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/log_sink.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define JOURNAL_PREFIX "<6>"

struct access_log {
    struct log_sink sink;
    enum access_log_format format;
    bool for_journal;
};

struct access_entry {
    struct access_log *log;
    struct timespec started; /* monotonic */
    bool answered;
    struct access_facts facts;
};

bool access_log_open(const struct settings *settings, struct access_log **log)
{
    *log = NULL;
    if (strcmp(settings->access_log, SETTINGS_ACCESS_LOG_OFF) == 0)
        return true;
    *log = calloc(1, sizeof **log);
    if (*log == NULL) {
        log_error("setting access_log: out of memory");
        return false;
    }
    (*log)->format = (enum access_log_format)settings->access_log_format;
    if (strcmp(settings->access_log, SETTINGS_ACCESS_LOG_STDERR) == 0) {
        log_sink_use_stderr(&(*log)->sink);
        (*log)->for_journal = log_is_journal();
    } else if (!log_sink_open(&(*log)->sink, settings->access_log)) {
        log_error("setting access_log: %s: %s", settings->access_log, strerror(errno));
        free(*log);
        *log = NULL;
        return false;
    }
    return true;
}

void access_log_free(struct access_log *log)
{
    if (log == NULL)
        return;
    log_sink_close(&log->sink);
    free(log);
}

void access_log_reopen(struct access_log *log)
{
    /* The log reopens standard error. */
    if (log != NULL && log->sink.fd > STDERR_FILENO && !log_sink_reopen(&log->sink))
        log_error("cannot open %s again: %s", log->sink.path, strerror(errno));
}

/* --- one request ------------------------------------------------------------------------------------------ */

struct access_entry *access_begin(struct access_log *log)
{
    struct access_entry *entry = log != NULL ? calloc(1, sizeof *entry) : NULL;

    if (entry == NULL)
        return NULL;
    entry->log = log;
    clock_gettime(CLOCK_MONOTONIC, &entry->started);
    entry->facts.started_us = realtime_us();
    return entry;
}

void access_client(struct access_entry *entry, const char *name)
{
    if (entry != NULL)
        snprintf(entry->facts.client, sizeof entry->facts.client, "%s", name);
}

void access_head(struct access_entry *entry, const struct request_head *head, bool is_http_1_0)
{
    if (entry == NULL)
        return;
    access_text_set(&entry->facts.method, head->method);
    access_text_set(&entry->facts.path, access_path(head->target));
    access_text_set(&entry->facts.user_agent, head->fields[GUARD_FIELD_USER_AGENT]);
    entry->facts.is_http_1_0 = is_http_1_0;
}

void access_status(struct access_entry *entry, int status)
{
    if (entry != NULL)
        entry->facts.status = status;
}

void access_answered(struct access_entry *entry)
{
    if (entry != NULL)
        entry->answered = true;
}

bool access_is_answered(const struct access_entry *entry)
{
    return entry != NULL && entry->answered;
}

void access_sent(struct access_entry *entry, uint64_t bytes)
{
    if (entry != NULL)
        entry->facts.bytes += bytes;
}

void access_event(struct access_entry *entry)
{
    if (entry != NULL)
        entry->facts.events++;
}

void access_run(struct access_entry *entry, const struct access_run *run)
{
    if (entry != NULL)
        access_facts_run(&entry->facts, run);
}

static int64_t microseconds_since(const struct timespec *then)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)(now.tv_sec - then->tv_sec) * 1000000 + (now.tv_nsec - then->tv_nsec) / 1000;
}

/* What becomes of the access log is news for the other one. */
static void write_line(struct access_log *log, const char *line, size_t length)
{
    const char *name = *log->sink.path != '\0' ? log->sink.path : "on standard error";

    switch (log_sink_write(&log->sink, line, length)) {
    case LOG_WRITTEN_AGAIN:
        log_error("%" PRIu64 " lines of the access log %s are lost: %s", log->sink.lost, name,
                  strerror(log->sink.error));
        log->sink.lost = 0;
        break;
    case LOG_LOST_FIRST:
        log_error("cannot write the access log %s, its lines are lost: %s", name, strerror(log->sink.error));
        break;
    case LOG_WRITTEN:
    case LOG_LOST:
        break;
    default:
        log_panic("access_log: unknown fate of a line");
    }
}

void access_end(struct access_entry *entry, bool complete)
{
    char line[sizeof JOURNAL_PREFIX - 1 + ACCESS_LINE_MAX_BYTES] = JOURNAL_PREFIX;
    size_t skipped, length;

    if (entry == NULL)
        return;
    if (entry->facts.status == 0 && entry->facts.method.length == 0) {
        free(entry);
        return;
    }
    skipped = entry->log->for_journal ? 0 : strlen(JOURNAL_PREFIX);
    entry->facts.duration_us = microseconds_since(&entry->started);
    entry->facts.is_complete = complete;
    length = access_line_format(&entry->facts, entry->log->format, line + strlen(JOURNAL_PREFIX));
    write_line(entry->log, line + skipped, strlen(JOURNAL_PREFIX) - skipped + length);
    free(entry);
}
