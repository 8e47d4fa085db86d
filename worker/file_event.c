#include "worker/file_event.h"

#include "common/log.h"
#include "worker/agent_config.h"
#include "worker/memory_watch.h"
#include "worker/stderr_text.h"

#include <errno.h>
#include <event2/buffer.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

/* Base64 is made in blocks of this: a multiple of 3. */
#define BLOCK_BYTES 49152

struct file_event {
    struct spool *spool;
    char *head; /* up to its data */
    size_t offset;
};

/* The event up to its data: the last brace is cut off. */
static char *file_event_head(const char *path, size_t size)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    char *full, *text = NULL;
    json_t *head;

    if (asprintf(&full, "%s/%s", AGENT_HOME, path) < 0)
        return NULL;
    head = json_pack("{s:s, s:o, s:o, s:o, s:I}", "type", "file", "name", json_lossy_string(name, strlen(name)),
                     "relative_path", json_lossy_string(path, strlen(path)), "path",
                     json_lossy_string(full, strlen(full)), "size", (json_int_t)size);
    free(full);
    if (head != NULL)
        text = json_dumps_whole(head, JSON_COMPACT);
    json_decref(head);
    if (text != NULL)
        text[strlen(text) - 1] = '\0';
    return text;
}

static void file_event_free(void *state)
{
    struct file_event *event = state;

    spool_free(event->spool);
    free(event->head);
    free(event);
}

/* The next block, in base64. */
static bool add_block(struct file_event *event, struct evbuffer *out)
{
    size_t left = spool_length(event->spool) - event->offset;
    size_t length = left < BLOCK_BYTES ? left : BLOCK_BYTES;
    char bytes[BLOCK_BYTES];
    struct evbuffer_iovec space;

    if (!spool_read(event->spool, event->offset, bytes, length)) {
        log_error("a file of an agent cannot be read back: %s", strerror(errno));
        return false;
    }
    if (evbuffer_reserve_space(out, BLOCK_BYTES / 3 * 4 + 1, &space, 1) != 1)
        return false;
    space.iov_len = (size_t)EVP_EncodeBlock(space.iov_base, (const unsigned char *)bytes, (int)length);
    event->offset += length;
    return evbuffer_commit_space(out, &space, 1) == 0;
}

static enum event_source_result file_event_next(void *state, struct evbuffer *out)
{
    struct file_event *event = state;
    bool whole;

    if (event->offset == 0 && evbuffer_add_printf(out, "%s,\"data\":\"", event->head) < 0)
        return EVENT_SOURCE_BROKEN;
    if (!add_block(event, out))
        return EVENT_SOURCE_BROKEN;
    whole = event->offset == spool_length(event->spool);
    if (whole && evbuffer_add(out, "\"}", 2) < 0)
        return EVENT_SOURCE_BROKEN;
    return whole ? EVENT_SOURCE_END : EVENT_SOURCE_MORE;
}

void file_event_put(struct event_stream *stream, const char *path, struct spool *spool)
{
    struct file_event *event = calloc(1, sizeof *event);
    char *head = event != NULL ? file_event_head(path, spool_length(spool)) : NULL;

    if (head == NULL) {
        log_error("a file event could not be made: out of memory");
        free(event);
        spool_free(spool);
        return;
    }
    event->spool = spool;
    event->head = head;
    event_stream_put_source(stream,
                            &(struct event_source){.next = file_event_next, .free = file_event_free, .state = event});
}
