/*
 * Files on their way into a sandbox: whatever their names are, what the worker uploads over a real connection is what
 * sandboxd's readers of multipart bodies and targets give. An input is a name, a NUL, the bytes of the file, a NUL, the
 * next name.
 */
#include "common/metrics.h"
#include "sandboxd/multipart.h"
#include "tests/fuzz/fuzz.h"
#include "worker/e2b.h"

#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <sys/un.h>
#include <unistd.h>

#define FILES_MAX 8

static struct event_base *base;
static struct http_client *client;
static struct sockaddr_un address = {.sun_family = AF_UNIX};

/* What is uploaded, and which of it has come. */
static struct e2b_file files[FILES_MAX];
static size_t file_count;
static bool has_come[FILES_MAX];
static int ends;

static void clean_up(void)
{
    unlink(address.sun_path);
}

/* --- the sandbox's side ----------------------------------------------------------------------------------- */

static void come(const char *name, const char *bytes, size_t length)
{
    for (size_t i = 0; i < file_count; i++) {
        if (has_come[i] || strcmp(files[i].path, name) != 0 || files[i].length != length ||
            (length > 0 && memcmp(files[i].bytes, bytes, length) != 0))
            continue;
        has_come[i] = true;
        return;
    }
    fprintf(stderr, "a file came that was not sent: %s\n", name);
    abort();
}

static void read_multipart(struct evbuffer *in, const char *content_type)
{
    char *boundary = multipart_boundary(content_type);
    struct multipart *multipart = multipart_new(boundary != NULL ? boundary : "");
    struct evbuffer *bytes = evbuffer_new();
    enum multipart_event event;
    size_t length;

    FUZZ_CHECK(boundary != NULL);
    while ((event = multipart_next(multipart, in, &length)) != MULTIPART_END) {
        FUZZ_CHECK(event == MULTIPART_FILE || event == MULTIPART_BYTES || event == MULTIPART_FILE_END);
        if (event == MULTIPART_BYTES) {
            evbuffer_remove_buffer(in, bytes, length);
        } else if (event == MULTIPART_FILE_END) {
            come(multipart_filename(multipart), (const char *)evbuffer_pullup(bytes, -1), evbuffer_get_length(bytes));
            evbuffer_drain(bytes, evbuffer_get_length(bytes));
        }
    }
    evbuffer_free(bytes);
    multipart_free(multipart);
    free(boundary);
}

static void read_one(struct evbuffer *in, const char *uri)
{
    const char *query = strchr(uri, '?');
    struct evkeyvalq pairs;
    const char *name;

    FUZZ_CHECK(query != NULL && evhttp_parse_query_str(query + 1, &pairs) == 0);
    name = evhttp_find_header(&pairs, "path");
    FUZZ_CHECK(name != NULL);
    come(name, (const char *)evbuffer_pullup(in, -1), evbuffer_get_length(in));
    evhttp_clear_headers(&pairs);
}

static void on_request(struct evhttp_request *request, void *context)
{
    const char *type = evhttp_find_header(evhttp_request_get_input_headers(request), "Content-Type");
    struct evbuffer *in = evhttp_request_get_input_buffer(request), *out = evbuffer_new();
    bool is_multipart = type != NULL && strncmp(type, "multipart/form-data", 19) == 0;

    (void)context;
    if (is_multipart)
        read_multipart(in, type);
    else
        read_one(in, evhttp_request_get_uri(request));
    evbuffer_add_printf(out, "[{}");
    for (size_t i = 1; is_multipart && i < file_count; i++)
        evbuffer_add_printf(out, ",{}");
    evbuffer_add_printf(out, "]");
    evhttp_send_reply(request, 200, NULL, out);
    evbuffer_free(out);
}

static void set_up(void)
{
    struct evhttp *http;
    struct evconnlistener *listener;

    base = event_base_new();
    http = evhttp_new(base);
    snprintf(address.sun_path, sizeof address.sun_path, "/tmp/sandstorm-fuzz-%d.sock", (int)getpid());
    listener = evconnlistener_new_bind(base, NULL, NULL, LEV_OPT_CLOSE_ON_FREE, -1, (struct sockaddr *)&address,
                                       sizeof address);
    FUZZ_CHECK(http != NULL && listener != NULL && evhttp_bind_listener(http, listener) != NULL);
    evhttp_set_gencb(http, on_request, NULL);
    evhttp_set_max_body_size(http, 1 << 24);
    atexit(clean_up);
    client = http_client_new(base, &(const struct http_client_options){.ca_file = "", .proxy = ""});
    FUZZ_CHECK(client != NULL);
}

/* --- the worker's side ------------------------------------------------------------------------------------ */

static void on_uploaded(void *context, const struct e2b_result *result)
{
    (void)context;
    if (result->error != RUN_ERROR_NONE)
        fprintf(stderr, "%s\n", result->message);
    FUZZ_CHECK(result->error == RUN_ERROR_NONE);
    ends++;
}

/* The next text of the input, up to a NUL; to be freed. */
static char *take(const uint8_t **data, size_t *size, size_t *length)
{
    const uint8_t *nul = *size > 0 ? memchr(*data, '\0', *size) : NULL;
    char *text;

    *length = nul != NULL ? (size_t)(nul - *data) : *size;
    text = fuzz_text(*data, *length);
    *data += *length + (nul != NULL);
    *size -= *length + (nul != NULL);
    return text;
}

static void take_files(const uint8_t *data, size_t size)
{
    for (file_count = 0; file_count < FILES_MAX && (size > 0 || file_count == 0); file_count++) {
        struct e2b_file *file = &files[file_count];
        size_t length;
        char *name = take(&data, &size, &length), *path;

        FUZZ_CHECK(asprintf(&path, "/home/user/%s", name) >= 0);
        free(name);
        file->path = path;
        file->bytes = take(&data, &size, &file->length);
        has_come[file_count] = false;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct e2b_sandbox sandbox = {.id = "i1", .base_url = "http://localhost"};
    struct e2b_context e2b;
    struct e2b_upload *upload;

    if (base == NULL)
        set_up();
    e2b = (struct e2b_context){.http = client, .base = base, .service = e2b_service_local(address.sun_path)};
    take_files(data, size);
    ends = 0;
    upload = e2b_upload(&e2b, &sandbox, files, file_count, on_uploaded, NULL);
    FUZZ_CHECK(upload != NULL);
    while (ends == 0)
        FUZZ_CHECK(event_base_loop(base, EVLOOP_ONCE) == 0);
    FUZZ_CHECK(ends == 1);
    for (size_t i = 0; i < file_count; i++) {
        FUZZ_CHECK(has_come[i]);
        free((char *)files[i].path);
        free((char *)files[i].bytes);
    }
    e2b_service_unref(e2b.service);
    return 0;
}
