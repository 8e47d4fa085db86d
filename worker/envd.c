/*
 * The sandbox's own service, envd: upload, read, probe, signal (e2b.md 0.7 to 0.9, http-api.md 6.5).
 */
#include "worker/e2b_call.h"

#include "common/log.h"
#include "worker/utf8.h"

#include <stdlib.h>
#include <string.h>

#define STALL_TIMEOUT_MS  30000
#define FILE_TIMEOUT_MS   60000 /* plus a second per MiB */
#define PROBE_TIMEOUT_MS  5000
#define SIGNAL_TIMEOUT_MS 10000
#define ANSWER_MAX_BYTES  (1u << 20)
#define NAME_MAX_SHOWN    100 /* code points of a file, in the text of an error */
#define MIB               (1u << 20)

/* One transfer of an upload: all files in one multipart request, or one file. */
struct upload_part {
    struct e2b_upload *upload;
    struct e2b_call *call; /* NULL: ended */
    size_t files;          /* carried by it */
};

struct e2b_upload {
    struct upload_part *parts;
    size_t part_count;
    size_t running;
    const struct e2b_file *files;
    size_t file_count;
    void (*on_uploaded)(void *context, const struct e2b_result *result);
    void *context;
};

char *e2b_sandbox_url(const struct e2b_sandbox *sandbox, const char *path)
{
    size_t length = strlen(sandbox->base_url);
    char *url;

    while (length > 0 && sandbox->base_url[length - 1] == '/')
        length--;
    return asprintf(&url, "%.*s%s", (int)length, sandbox->base_url, path) < 0 ? NULL : url;
}

/* …/files?path=<percent-encoded>; NULL for lack of memory. */
static char *file_url(const struct e2b_sandbox *sandbox, const char *path)
{
    char *escaped = curl_easy_escape(NULL, path, 0);
    char *with_query = NULL;
    char *url = NULL;

    if (escaped != NULL && asprintf(&with_query, "/files?path=%s", escaped) >= 0)
        url = e2b_sandbox_url(sandbox, with_query);
    free(with_query);
    curl_free(escaped);
    return url;
}

static int64_t file_timeout_ms(size_t bytes)
{
    return FILE_TIMEOUT_MS + (int64_t)(bytes / MIB) * 1000;
}

/* --- upload ---------------------------------------------------------------------------------------- */

/* Can a path stand in a part's header as it is? (e2b.md A.2) */
static bool is_plain(const char *path)
{
    for (const char *c = path; *c != '\0'; c++) {
        if (*c < 0x20 || *c > 0x7e || *c == '"' || *c == '\\')
            return false;
    }
    return true;
}

static bool all_plain(const struct e2b_file *files, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!is_plain(files[i].path))
            return false;
    }
    return true;
}

void e2b_upload_cancel(struct e2b_upload *upload)
{
    if (upload == NULL)
        return;
    for (size_t i = 0; i < upload->part_count; i++)
        e2b_call_cancel(upload->parts[i].call);
    free(upload->parts);
    free(upload);
}

/* "Failed to upload <n> files (<names>) to sandbox: <reason>" (http-api.md 5.6); the reason always has room. */
static void failure_text(const struct e2b_upload *upload, const char *reason, char out[static E2B_MESSAGE_MAX_BYTES])
{
    char names[E2B_MESSAGE_MAX_BYTES / 2] = "";
    size_t used = 0;

    for (size_t i = 0; i < upload->file_count && used < sizeof names; i++) {
        const char *slash = strrchr(upload->files[i].path, '/');

        const char *name = slash != NULL ? slash + 1 : upload->files[i].path;
        int shown = (int)utf8_prefix(name, strlen(name), NAME_MAX_SHOWN);

        used += (size_t)snprintf(names + used, sizeof names - used, "%s%.*s", i > 0 ? ", " : "", shown, name);
    }
    error_text_clean(names); /* the last one may be cut */
    snprintf(out, E2B_MESSAGE_MAX_BYTES, "Failed to upload %zu files (%s%s) to sandbox: %.*s", upload->file_count,
             names, used < sizeof names ? "" : "…", E2B_MESSAGE_MAX_BYTES / 3, reason);
    error_text_clean(out);
}

/* Tells the run, once, and ends what is still under way. */
static void upload_end(struct e2b_upload *upload, enum run_error error, const char *reason)
{
    char message[E2B_MESSAGE_MAX_BYTES];
    struct e2b_result result = e2b_failed(error, reason);

    if (error == RUN_ERROR_UPLOAD_FAILED) {
        failure_text(upload, reason, message);
        result.message = message;
    }
    upload->on_uploaded(upload->context, &result);
    e2b_upload_cancel(upload);
}

/* The answer is one array entry per file, whatever its Content-Type says (e2b.md A.2). */
static bool all_written(const struct http_answer *answer, size_t files)
{
    json_t *root = json_loadb(answer->body, answer->body_length, 0, NULL);
    bool whole = json_array_size(root) == files;

    json_decref(root);
    return whole;
}

static void on_part_end(void *operation, const struct e2b_result *result, const struct http_answer *answer)
{
    struct upload_part *part = operation;
    struct e2b_upload *upload = part->upload;

    part->call = NULL;
    upload->running--;
    if (result->error != RUN_ERROR_NONE)
        upload_end(upload, result->error, result->message);
    else if (answer == NULL || !all_written(answer, part->files))
        upload_end(upload, RUN_ERROR_UPSTREAM_PROTOCOL, "unusable answer to the upload of files");
    else if (upload->running == 0)
        upload_end(upload, RUN_ERROR_NONE, "");
}

static struct http_part *multipart(const struct e2b_file *files, size_t count, size_t *bytes)
{
    struct http_part *parts = calloc(count, sizeof *parts);

    *bytes = 0;
    for (size_t i = 0; parts != NULL && i < count; i++) {
        parts[i] = (struct http_part){.filename = files[i].path, .bytes = files[i].bytes, .length = files[i].length};
        *bytes += files[i].length;
    }
    return parts;
}

static char *copy_bytes(const char *bytes, size_t length)
{
    char *copy = malloc(length + 1);

    if (copy != NULL && length > 0)
        memcpy(copy, bytes, length);
    return copy;
}

/* Starts one transfer with `count` files. */
static bool start_part(struct upload_part *part, const struct e2b_context *e2b, const struct e2b_sandbox *sandbox,
                       const struct e2b_file *files, size_t count)
{
    struct e2b_call_spec spec = {
        .stage = E2B_STAGE_UPLOAD,
        .counted_as = METRIC_OPERATION_UPLOAD,
        .method = "POST",
        .sandbox = sandbox,
        .stall_timeout_ms = STALL_TIMEOUT_MS,
        .answer_max_bytes = ANSWER_MAX_BYTES,
        .on_end = on_part_end,
        .operation = part,
    };

    part->files = count;
    if (part->upload->part_count == 1 && all_plain(files, count)) {
        spec.url = e2b_sandbox_url(sandbox, "/files");
        spec.parts = multipart(files, count, &spec.body_length);
        spec.part_count = count;
    } else {
        spec.url = file_url(sandbox, files->path);
        spec.content_type = "application/octet-stream";
        spec.body = copy_bytes(files->bytes, files->length);
        spec.body_length = files->length;
    }
    spec.total_timeout_ms = file_timeout_ms(spec.body_length);
    if (spec.parts == NULL && spec.body == NULL) {
        free(spec.url);
        return false;
    }
    part->call = e2b_call_new(e2b, &spec);
    return part->call != NULL;
}

struct e2b_upload *e2b_upload(const struct e2b_context *e2b, const struct e2b_sandbox *sandbox,
                              const struct e2b_file *files, size_t count,
                              void (*on_uploaded)(void *context, const struct e2b_result *result), void *context)
{
    struct e2b_upload *upload = calloc(1, sizeof *upload);
    size_t part_count = all_plain(files, count) ? 1 : count;

    if (upload == NULL || (upload->parts = calloc(part_count, sizeof *upload->parts)) == NULL) {
        free(upload);
        return NULL;
    }
    upload->part_count = part_count;
    upload->files = files;
    upload->file_count = count;
    upload->on_uploaded = on_uploaded;
    upload->context = context;
    for (size_t i = 0; i < part_count; i++) {
        upload->parts[i].upload = upload;
        if (!start_part(&upload->parts[i], e2b, sandbox, &files[i], part_count == 1 ? count : 1)) {
            e2b_upload_cancel(upload);
            return NULL;
        }
        upload->running++;
    }
    return upload;
}

/* --- read ------------------------------------------------------------------------------------------ */

static void on_read_bytes(void *operation, const char *bytes, size_t length)
{
    const struct e2b_read_request *read = operation;

    read->on_bytes(read->context, bytes, length);
}

static void on_read_again(void *operation)
{
    const struct e2b_read_request *read = operation;

    read->on_again(read->context);
}

static void on_read_end(void *operation, const struct e2b_result *result, const struct http_answer *answer)
{
    const struct e2b_read_request *read = operation;

    (void)answer;
    read->on_read(read->context, result);
}

struct e2b_call *e2b_read(const struct e2b_context *e2b, const struct e2b_sandbox *sandbox,
                          const struct e2b_read_request *request)
{
    struct e2b_read_request *read = malloc(sizeof *read);
    struct e2b_call_spec spec;

    if (read == NULL)
        return NULL;
    *read = *request;
    spec = (struct e2b_call_spec){
        .stage = E2B_STAGE_READ,
        .counted_as = METRIC_OPERATION_READ,
        .method = "GET",
        .url = file_url(sandbox, request->path),
        .sandbox = sandbox,
        .total_timeout_ms = file_timeout_ms(request->limit_bytes),
        .stall_timeout_ms = STALL_TIMEOUT_MS,
        .answer_max_bytes = ANSWER_MAX_BYTES,
        .stream_max_bytes = request->limit_bytes,
        .on_body = on_read_bytes,
        .wants_whole = true,
        .on_again = on_read_again,
        .on_end = on_read_end,
        .free_operation = free,
        .operation = read,
    };
    return e2b_call_new(e2b, &spec);
}

/* --- probe ----------------------------------------------------------------------------------------- */

struct probe {
    void (*on_probed)(void *context, bool gone);
    void *context;
};

static void on_probe_end(void *operation, const struct e2b_result *result, const struct http_answer *answer)
{
    struct probe *probe = operation;

    (void)answer;
    probe->on_probed(probe->context, result->error == RUN_ERROR_SANDBOX_LOST);
}

struct e2b_call *e2b_probe(const struct e2b_context *e2b, const struct e2b_sandbox *sandbox,
                           void (*on_probed)(void *context, bool gone), void *context)
{
    struct probe *probe = calloc(1, sizeof *probe);
    struct e2b_call_spec spec;

    if (probe == NULL)
        return NULL;
    probe->on_probed = on_probed;
    probe->context = context;
    spec = (struct e2b_call_spec){
        .stage = E2B_STAGE_PROBE,
        .counted_as = METRIC_OPERATION_PROBE,
        .method = "GET",
        .url = e2b_sandbox_url(sandbox, "/health"),
        .sandbox = sandbox,
        .total_timeout_ms = PROBE_TIMEOUT_MS,
        .answer_max_bytes = ANSWER_MAX_BYTES,
        .on_end = on_probe_end,
        .free_operation = free,
        .operation = probe,
    };
    return e2b_call_new(e2b, &spec);
}

/* --- signal ---------------------------------------------------------------------------------------- */

static void on_signal_end(void *operation, const struct e2b_result *result, const struct http_answer *answer)
{
    (void)operation;
    (void)answer;
    if (result->error != RUN_ERROR_NONE)
        log_debug("sandbox service: signal: %s", result->message);
}

void e2b_kill_process(const struct e2b_context *e2b, const struct e2b_sandbox *sandbox, int64_t pid)
{
    char *body;
    struct e2b_call *call;

    if (asprintf(&body, "{\"process\":{\"pid\":%lld},\"signal\":\"SIGNAL_SIGKILL\"}", (long long)pid) < 0)
        return;
    call = e2b_call_new(e2b, &(struct e2b_call_spec){
                                 .stage = E2B_STAGE_PROBE,
                                 .counted_as = METRIC_OPERATION_SIGNAL,
                                 .method = "POST",
                                 .url = e2b_sandbox_url(sandbox, "/process.Process/SendSignal"),
                                 .sandbox = sandbox,
                                 .content_type = "application/json",
                                 .dress = E2B_RPC_UNARY,
                                 .user = sandbox->needs_user ? E2B_USER_NAMED : E2B_USER_OF_ENVD,
                                 .body = body,
                                 .body_length = strlen(body),
                                 .total_timeout_ms = SIGNAL_TIMEOUT_MS,
                                 .answer_max_bytes = ANSWER_MAX_BYTES,
                                 .on_end = on_signal_end,
                             });
    (void)call; /* ends by itself, in one try: the sandbox may be gone by then, its headers are already made */
}
