#include "sandboxd/init/talk.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Sent at once when there is this much. */
#define FLUSH_BYTES 32768

/* What this process is about to say. One conversation is all that such a process is. */
static struct {
    size_t used;   /* whole records */
    size_t record; /* of the record that is made, its head included */
    bool dropped;
    char bytes[FLUSH_BYTES + sizeof(struct filesystem_record) + FILESYSTEM_RECORD_MAX_BYTES];
} out;

void talk_flush(void)
{
    size_t sent = 0;

    while (sent < out.used) {
        ssize_t put = send(TALK_FD, out.bytes + sent, out.used - sent, MSG_NOSIGNAL);

        if (put < 0 && errno != EINTR)
            _exit(0);
        if (put > 0)
            sent += (size_t)put;
    }
    out.used = 0;
}

void talk_begin(enum filesystem_record_kind kind)
{
    const struct filesystem_record head = {.kind = kind};

    memcpy(out.bytes + out.used, &head, sizeof head);
    out.record = sizeof head;
    out.dropped = false;
}

void talk_put(const void *bytes, size_t length)
{
    if (length > sizeof(struct filesystem_record) + FILESYSTEM_RECORD_MAX_BYTES - out.record) {
        out.dropped = true;
        return;
    }
    memcpy(out.bytes + out.used + out.record, bytes, length);
    out.record += length;
}

void talk_put_string(const char *text)
{
    talk_put(text, strlen(text) + 1);
}

void talk_end(void)
{
    uint32_t bytes = (uint32_t)(out.record - sizeof(struct filesystem_record));

    if (out.dropped)
        return;
    memcpy(out.bytes + out.used + offsetof(struct filesystem_record, bytes), &bytes, sizeof bytes);
    out.used += out.record;
    if (out.used >= FLUSH_BYTES)
        talk_flush();
}

const char *talk_reason(int error)
{
    static char text[128];

    snprintf(text, sizeof text, "%s", strerror(error));
    if (islower((unsigned char)text[1]))
        text[0] = (char)tolower((unsigned char)text[0]);
    return text;
}

enum filesystem_error talk_error_of(int error)
{
    switch (error) {
    case ENOENT:
    case ENOTDIR:
        return FILESYSTEM_NOT_FOUND;
    case ELOOP:
        return FILESYSTEM_PRECONDITION;
    case ENAMETOOLONG:
        return FILESYSTEM_INVALID;
    case EACCES:
    case EPERM:
    case EROFS:
        return FILESYSTEM_DENIED;
    case EAGAIN:
    case ENOMEM:
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
        return FILESYSTEM_EXHAUSTED;
    default:
        return FILESYSTEM_INTERNAL;
    }
}

void talk_fail(enum filesystem_error error, const char *format, ...)
{
    const uint32_t code = error;
    char text[2 * FILESYSTEM_PATH_MAX_BYTES + 256];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    talk_begin(FILESYSTEM_FAILED);
    talk_put(&code, sizeof code);
    talk_put(text, strlen(text));
    talk_end();
    talk_flush();
    _exit(0);
}

void talk_refuse(int fd, int error)
{
    struct {
        struct filesystem_record head;
        uint32_t code;
        char text[128];
    } record = {.head.kind = FILESYSTEM_FAILED, .code = talk_error_of(error)};
    int length =
        snprintf(record.text, sizeof record.text, "the sandbox can run no more processes: %s", talk_reason(error));

    record.head.bytes = (uint32_t)(sizeof record.code + (size_t)length);
    /* It fits into an empty socket; who has closed it wants no answer. */
    (void)!send(fd, &record, sizeof record.head + record.head.bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
}
