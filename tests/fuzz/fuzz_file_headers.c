/*
 * Headers around files: the name of a download is read back by our own reader of form-data, a range lies in its file,
 * an attachment is within its bounds, a user is a name. An input is a path, a size, and header lines, a line each.
 */
#include "sandboxd/access.h"
#include "sandboxd/file_headers.h"
#include "sandboxd/file_metadata.h"
#include "sandboxd/multipart.h"
#include "tests/fuzz/fuzz.h"

#include <ctype.h>
#include <event2/http.h>
#include <sys/queue.h>

/* The file name of a part with these parameters of its disposition. */
static void check_disposition(const char *path)
{
    char *header = file_disposition(path);
    const char *slash = strrchr(path, '/'), *name = slash != NULL ? slash + 1 : path;
    struct multipart *multipart = multipart_new("B");
    struct evbuffer *in = evbuffer_new();
    size_t length;

    FUZZ_CHECK(strncmp(header, "inline; ", 8) == 0);
    for (const char *c = header; *c != '\0'; c++)
        FUZZ_CHECK(*c >= ' ' && *c <= '~');
    evbuffer_add_printf(in, "--B\r\nContent-Disposition: form-data; name=file; %s\r\n\r\nx\r\n--B--", header + 8);
    /* A part's head has a bound, which the longest names of files do not reach. */
    if (strlen(name) <= 255) {
        FUZZ_CHECK(multipart_next(multipart, in, &length) == MULTIPART_FILE);
        FUZZ_CHECK(strcmp(multipart_filename(multipart), name) == 0);
    }
    evbuffer_free(in);
    multipart_free(multipart);
    free(header);
}

static void check_range(const char *header, off_t size)
{
    off_t start = -1, length = -1;

    if (file_range(header, size, &start, &length) == FILE_RANGE_PART)
        FUZZ_CHECK(start >= 0 && length > 0 && start < size && length <= size - start);
}

static void check_user(const char *header)
{
    char name[ACCESS_USER_MAX_BYTES];

    if (access_basic_user(header, name))
        FUZZ_CHECK(memchr(name, '\0', sizeof name) != NULL && strchr(name, ':') == NULL);
}

static void check_signature(const char *path, const char *given)
{
    const struct access_signed text = {
        .path = path, .operation = "read", .user = "user", .token = "t", .expiration = NULL};

    FUZZ_CHECK(!access_signature_fits(given, &text) || (strncmp(given, "v1_", 3) == 0 && strlen(given) == 46));
}

static void check_metadata(struct evkeyvalq *headers)
{
    const char *problem, *key;
    json_t *metadata = file_metadata_parse(headers, &problem), *value;
    size_t total = 0;

    FUZZ_CHECK((metadata == NULL) == (problem != NULL));
    json_object_foreach(metadata, key, value)
    {
        FUZZ_CHECK(strlen(key) <= 246 && json_is_string(value));
        for (const char *c = key; *c != '\0'; c++)
            FUZZ_CHECK(*c >= ' ' && *c <= '~' && !isupper((unsigned char)*c));
        total += strlen(key) + json_string_length(value);
    }
    FUZZ_CHECK(total <= 4096);
    json_decref(metadata);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_text(data, size), *rest = text, *path = strsep(&rest, "\n"), *line;
    long long file_size = rest != NULL ? llabs(atoll(strsep(&rest, "\n")) / 2) : 0;
    char date[FILE_DATE_MAX_BYTES];
    struct evkeyvalq headers;

    TAILQ_INIT(&headers);
    check_disposition(path);
    FUZZ_CHECK(file_date((time_t)file_size, date) == date && strlen(date) < sizeof date);
    while ((line = strsep(&rest, "\n")) != NULL) {
        char *colon = strchr(line, ':');

        check_range(line, (off_t)file_size);
        check_user(line);
        check_signature(path, line);
        if (colon != NULL) {
            *colon = '\0';
            evhttp_add_header(&headers, line, colon + 1 + (colon[1] == ' '));
        }
    }
    check_metadata(&headers);
    evhttp_clear_headers(&headers);
    free(text);
    return 0;
}
