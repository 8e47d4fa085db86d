/*
 * Queries of the control API: what was encoded as E2B encodes it comes back, a pair matches itself, and a time that the
 * worker can read too is the same time. Each line of an input is a value.
 */
#include "sandboxd/query.h"
#include "tests/fuzz/fuzz.h"
#include "worker/timestamp.h"
#include "worker/utf8.h"

#include <event2/http.h>

static void check_metadata(const char *text)
{
    json_t *metadata = query_metadata(text), *value;
    const char *key;

    if (metadata == NULL)
        return;
    FUZZ_CHECK(query_metadata_matches(metadata, metadata) && query_metadata_matches(NULL, NULL));
    json_object_foreach(metadata, key, value) FUZZ_CHECK(json_is_string(value));
    json_decref(metadata);
}

/* One pair, encoded twice: by itself, and as the value of a parameter. */
static void check_round_trip(const char *key, const char *text)
{
    char *name = evhttp_uriencode(key, -1, 1), *value = evhttp_uriencode(text, -1, 1), *pair, *encoded;
    json_t *metadata;

    FUZZ_CHECK(name != NULL && value != NULL && asprintf(&pair, "%s=%s", name, value) >= 0);
    encoded = evhttp_uriencode(pair, -1, 1);
    metadata = query_metadata(encoded);
    FUZZ_CHECK(json_object_size(metadata) == 1);
    FUZZ_CHECK(strcmp(json_string_value(json_object_get(metadata, key)), text) == 0);
    json_decref(metadata);
    free(name);
    free(value);
    free(pair);
    free(encoded);
}

static void check_time(const char *text)
{
    long long theirs;
    int64_t ours;
    bool is_time = query_time(text, &theirs);

    if (is_time && timestamp_parse(text, strlen(text), &ours))
        FUZZ_CHECK(ours == theirs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_text(data, size), *rest = text, *line;

    while ((line = strsep(&rest, "\n")) != NULL) {
        check_metadata(line);
        check_time(line);
        if (utf8_is_valid(line, strlen(line)))
            check_round_trip(rest != NULL && utf8_is_valid(rest, strlen(rest)) ? rest : "key", line);
    }
    free(text);
    return 0;
}
