/* Parameters of a target: what libevent reads of a well-formed query is what we read, and what is encoded comes back.
 */
#include "tests/fuzz/fuzz.h"
#include "worker/query_string.h"

#include <event2/buffer.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <sys/queue.h>

/* A parameter that was written is read, whatever stands before it. */
static void check_round_trip(const char *bytes, size_t size)
{
    char *encoded = evhttp_uriencode(bytes, (ev_ssize_t)size, 1), *query = NULL, *value;
    size_t length = 0;
    int written = asprintf(&query, "name=before&%s=x&name=%s", encoded, encoded);

    FUZZ_CHECK(encoded != NULL && written >= 0);
    value = query_string_get((struct span){query, (size_t)written}, "name", &length);
    FUZZ_CHECK(value != NULL && length == size && memcmp(value, bytes, size) == 0);
    free(value);
    free(encoded);
    free(query);
}

/* Of a text without NULs, libevent as the other reader: it takes only pairs that have a name and a sign of equality. */
static void compare_with_libevent(const char *text)
{
    struct evkeyvalq pairs;
    struct evkeyval *pair, *last;

    if (evhttp_parse_query_str(text, &pairs) < 0)
        return;
    TAILQ_FOREACH(pair, &pairs, next)
    {
        size_t length = 0;
        char *value;

        for (last = TAILQ_LAST(&pairs, evkeyvalq); strcmp(last->key, pair->key) != 0;
             last = TAILQ_PREV(last, evkeyvalq, next)) {
        }
        value = query_string_get((struct span){text, strlen(text)}, pair->key, &length);
        /* libevent does not decode names. */
        if (strpbrk(pair->key, "%+") == NULL && strstr(text, "%") == NULL && strchr(text, '+') == NULL) {
            FUZZ_CHECK(value != NULL && strcmp(value, last->value) == 0);
        } else if (value != NULL) {
            FUZZ_CHECK(length <= strlen(text));
        }
        free(value);
    }
    evhttp_clear_headers(&pairs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *bytes = (const char *)data;
    char *text = fuzz_text(data, size);
    size_t length = 0;
    char *value = query_string_get((struct span){bytes, size}, "status", &length);

    FUZZ_CHECK(value == NULL || (length <= size && value[length] == '\0'));
    free(value);
    if (size < 4096) {
        if (size > 0)
            check_round_trip(bytes, size);
        compare_with_libevent(text);
    }
    free(text);
    return 0;
}
