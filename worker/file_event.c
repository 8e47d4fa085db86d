#include "worker/file_event.h"

#include "worker/agent_config.h"
#include "worker/stderr_text.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

/* Base64 is made in blocks of this: a multiple of 3. */
#define BLOCK_BYTES 49152

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
        text = json_dumps(head, JSON_COMPACT);
    json_decref(head);
    if (text != NULL)
        text[strlen(text) - 1] = '\0';
    return text;
}

void file_event_put(struct event_stream *stream, const char *path, const char *bytes, size_t length)
{
    char encoded[BLOCK_BYTES / 3 * 4 + 1];
    char *head = file_event_head(path, length);

    if (head == NULL)
        return;
    event_stream_begin(stream);
    event_stream_add(stream, head, strlen(head));
    event_stream_add(stream, ",\"data\":\"", strlen(",\"data\":\""));
    while (length > 0) {
        size_t block = length < BLOCK_BYTES ? length : BLOCK_BYTES;
        int used = EVP_EncodeBlock((unsigned char *)encoded, (const unsigned char *)bytes, (int)block);

        event_stream_add(stream, encoded, (size_t)used);
        bytes += block;
        length -= block;
    }
    event_stream_add(stream, "\"}", 2);
    event_stream_finish(stream);
    event_stream_flush(stream);
    free(head);
}
