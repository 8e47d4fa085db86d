#include "worker/registration.h"

#include "common/e2b_webhook.h"
#include "common/fnv1a.h"
#include "common/log.h"
#include "common/small_file.h"
#include "common/state_files.h"
#include "worker/memory_watch.h"
#include "worker/own_service.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define NAME             "sandstorm-auto"
#define TIMEOUT_MS       30000
#define STOP_TIMEOUT_MS  5000 /* an instance that stops does not wait half a minute for this */
#define ANSWER_MAX_BYTES (256u << 10)
#define FILE_MAX_BYTES   4096
#define FILE_MODE        0600
#define ID_CHARS         "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

struct registration {
    struct registration_options options;
    struct e2b_service *service;    /* while something is under way */
    struct http_transfer *transfer; /* NULL: nothing is */
    char *body;                     /* of the request under way */
    char *url;                      /* the receiver's; NULL: none is wanted */
    uint64_t key;                   /* of what is wanted */
    bool is_elected;
    bool is_settled; /* what is wanted was seen to, well or badly */
    bool is_stopping;
};

static struct scoreboard *scoreboard_of(const struct registration *registration)
{
    return registration->options.host->scoreboard;
}

struct span registration_secret(const struct scoreboard *scoreboard, const struct environment *environment)
{
    const char *given = environment_value(environment, "SANDSTORM_WEBHOOK_SECRET");

    if (given == NULL && atomic_load(&scoreboard->has_webhook_secret))
        given = scoreboard->webhook_secret;
    return (struct span){given, given != NULL ? strlen(given) : 0};
}

/* --- what is wanted --------------------------------------------------------------------------------------- */

/* Of what a registration says; never 0. */
static uint64_t key_of(const char *url, struct span secret)
{
    return fnv1a(fnv1a(FNV1A_START, url, strlen(url)), secret.bytes, secret.length) | 1;
}

struct registration *registration_new(const struct registration_options *options)
{
    struct registration *registration = calloc(1, sizeof *registration);

    if (registration != NULL)
        registration->options = *options;
    return registration;
}

/* True when no other worker, of a generation before, has a request under way; then none begins one. */
static bool take_turn(struct registration *registration)
{
    struct scoreboard *scoreboard = scoreboard_of(registration);
    uint64_t busy = atomic_load(&scoreboard->webhook_busy);

    return (busy == 0 || busy == registration->options.host->serial || !scoreboard_is_alive(scoreboard, busy)) &&
           atomic_compare_exchange_strong(&scoreboard->webhook_busy, &busy, registration->options.host->serial);
}

/* Nothing is under way. */
static void be_idle(struct registration *registration)
{
    uint64_t own = registration->options.host->serial;

    atomic_compare_exchange_strong(&scoreboard_of(registration)->webhook_busy, &own, 0);
    registration->transfer = NULL;
    if (registration->body != NULL)
        explicit_bzero(registration->body, strlen(registration->body)); /* it holds the secret */
    free(registration->body);
    registration->body = NULL;
    e2b_service_unref(registration->service);
    registration->service = NULL;
}

void registration_free(struct registration *registration)
{
    if (registration == NULL)
        return;
    http_transfer_cancel(registration->transfer);
    be_idle(registration);
    free(registration->url);
    free(registration);
}

bool registration_is_busy(const struct registration *registration)
{
    return registration->transfer != NULL;
}

/* --- what is kept ------------------------------------------------------------------------------------------ */

/* A name in the state directory; NULL without one, and for lack of memory. */
static char *state_path(const struct registration *registration, const char *name)
{
    char *path;

    if (registration->options.state_dir == NULL || asprintf(&path, "%s/%s", registration->options.state_dir, name) < 0)
        return NULL;
    return path;
}

static bool is_id(const char *text)
{
    size_t length = text != NULL ? strlen(text) : 0;

    return length > 0 && length <= SCOREBOARD_WEBHOOK_ID_MAX_BYTES && strspn(text, ID_CHARS) == length;
}

/* {"id","secret"} of the file; NULL when there is none that can be used. The caller's. */
static json_t *read_state(const struct registration *registration)
{
    char *path = state_path(registration, STATE_FILE_WEBHOOK);
    const char *reason;
    size_t length = 0;
    char *text = path != NULL ? small_file_read(path, FILE_MAX_BYTES, &length, &reason) : NULL;
    json_t *state = text != NULL ? json_loadb(text, length, 0, NULL) : NULL;

    small_file_free(text, length);
    free(path);
    return state;
}

/* False with errno. */
static bool write_file(const char *path, const char *fresh, const char *text)
{
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
    int saved_errno;
    bool good;

    if (fd < 0)
        return false;
    good = write(fd, text, strlen(text)) == (ssize_t)strlen(text) && fsync(fd) == 0;
    if (close(fd) == 0 && good && rename(fresh, path) == 0)
        return true;
    saved_errno = errno;
    unlink(fresh);
    errno = saved_errno;
    return false;
}

/* What is in the scoreboard now. */
static void write_state(const struct registration *registration)
{
    const struct scoreboard *scoreboard = scoreboard_of(registration);
    char *path = state_path(registration, STATE_FILE_WEBHOOK);
    char *fresh = state_path(registration, STATE_FILE_WEBHOOK_NEW);
    json_t *state = json_pack("{s:s, s:s}", "id", scoreboard->webhook_id, "secret", scoreboard->webhook_secret);
    char *text = state != NULL ? json_dumps_whole(state, 0) : NULL;

    if (path != NULL && fresh != NULL && text != NULL && !write_file(path, fresh, text))
        log_warn("cannot keep the registration of the webhook in %s: %s", path, strerror(errno));
    if (text != NULL)
        explicit_bzero(text, strlen(text));
    free(text);
    json_decref(state);
    free(fresh);
    free(path);
}

/* --- the secret -------------------------------------------------------------------------------------------- */

static bool is_secret(const char *text)
{
    return text != NULL && strlen(text) == SCOREBOARD_WEBHOOK_SECRET_BYTES &&
           strspn(text, "0123456789abcdef") == SCOREBOARD_WEBHOOK_SECRET_BYTES;
}

/* False when there is no randomness. */
static bool draw_secret(char out[static SCOREBOARD_WEBHOOK_SECRET_BYTES + 1])
{
    unsigned char bytes[SCOREBOARD_WEBHOOK_SECRET_BYTES / 2];

    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return false;
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
    return true;
}

/* One for all workers: the kept one, else a new one. */
static void have_secret(struct registration *registration, const json_t *state)
{
    struct scoreboard *scoreboard = scoreboard_of(registration);
    const char *kept = json_string_value(json_object_get(state, "secret"));

    if (registration_secret(scoreboard, registration->options.environment).bytes != NULL)
        return;
    if (is_secret(kept))
        snprintf(scoreboard->webhook_secret, sizeof scoreboard->webhook_secret, "%s", kept);
    else if (!draw_secret(scoreboard->webhook_secret))
        return;
    atomic_store(&scoreboard->has_webhook_secret, true);
}

/* --- requests ---------------------------------------------------------------------------------------------- */

/* A request, with registration->body if it has one. False: it could not be sent; on_done will not be called. */
static bool send_request(struct registration *registration, const char *method, const char *path,
                         void (*on_done)(void *context, const struct http_answer *answer))
{
    int64_t timeout_ms = registration->is_stopping ? STOP_TIMEOUT_MS : TIMEOUT_MS;
    struct http_request request = {.method = method,
                                   .body = registration->body,
                                   .body_length = registration->body != NULL ? strlen(registration->body) : 0,
                                   .total_timeout_ms = timeout_ms,
                                   .answer_max_bytes = ANSWER_MAX_BYTES,
                                   .on_done = on_done,
                                   .context = registration};

    registration->service =
        own_cloud_service(registration->options.host->project_dir, registration->options.environment);
    if (registration->service != NULL)
        registration->transfer = e2b_api_send(registration->options.host->http, registration->service, path, &request);
    if (registration->transfer == NULL)
        be_idle(registration);
    return registration->transfer != NULL;
}

static bool is_good(const struct http_answer *answer)
{
    return answer->outcome == TRANSFER_ANSWERED && answer->status / 100 == 2;
}

static void log_failure(const char *what, const struct http_answer *answer)
{
    if (answer->outcome == TRANSFER_ANSWERED)
        log_warn("webhook: cannot %s: the sandbox service answered %d", what, answer->status);
    else
        log_warn("webhook: cannot %s: %s", what, answer->error);
}

/* The scoreboard first, for the other workers, then the file. */
static void set_id(struct registration *registration, const char *id)
{
    struct scoreboard *scoreboard = scoreboard_of(registration);

    snprintf(scoreboard->webhook_id, sizeof scoreboard->webhook_id, "%s", id);
    scoreboard->webhook_key = registration->key;
    atomic_store(&scoreboard->has_webhook, *id != '\0');
    write_state(registration);
}

static void delete_present(struct registration *registration);

/* What was made while the instance began to stop has nobody else to delete it, though this worker may have resigned. */
static void finish(struct registration *registration)
{
    be_idle(registration);
    if (registration->is_stopping && atomic_load(&scoreboard_of(registration)->has_webhook))
        delete_present(registration);
    if (!registration_is_busy(registration))
        registration->options.on_idle(registration->options.context);
}

/* --- registering ------------------------------------------------------------------------------------------- */

static void on_registered(void *context, const struct http_answer *answer)
{
    struct registration *registration = context;
    json_t *root = is_good(answer) ? json_loadb(answer->body, answer->body_length, 0, NULL) : NULL;
    const char *id = json_string_value(json_object_get(root, "id"));

    if (!is_good(answer)) {
        log_failure("register", answer);
    } else if (!is_id(id)) {
        log_warn("webhook: registered, but the sandbox service named no id: it cannot be deleted");
    } else {
        set_id(registration, id);
        log_info("webhook: registered as %s for %s", id, registration->url);
    }
    json_decref(root);
    finish(registration);
}

static void send_registration(struct registration *registration)
{
    struct span secret = registration_secret(scoreboard_of(registration), registration->options.environment);
    json_t *body =
        json_pack("{s:s, s:s, s:b, s:s, s:[s, s, s]}", "name", NAME, "url", registration->url, "enabled", 1,
                  "signatureSecret", secret.bytes, "events", E2B_EVENT_CREATED, E2B_EVENT_UPDATED, E2B_EVENT_KILLED);

    registration->body = body != NULL ? json_dumps_whole(body, JSON_COMPACT) : NULL;
    json_decref(body);
    if (registration->body == NULL || !send_request(registration, "POST", E2B_WEBHOOK_PATH, on_registered))
        log_warn("webhook: cannot register: out of memory, or a secret that is not UTF-8");
}

static void on_old_deleted(void *context, const struct http_answer *answer)
{
    struct registration *registration = context;

    if (!is_good(answer) && answer->status != 404)
        log_failure("delete the registration of before", answer);
    be_idle(registration);
    set_id(registration, "");
    if (registration->url != NULL && !registration->is_stopping)
        send_registration(registration);
    if (!registration_is_busy(registration))
        finish(registration);
}

static bool send_deletion(struct registration *registration, const char *id,
                          void (*on_done)(void *context, const struct http_answer *answer))
{
    char path[sizeof E2B_WEBHOOK_PATH + 1 + SCOREBOARD_WEBHOOK_ID_MAX_BYTES];

    snprintf(path, sizeof path, E2B_WEBHOOK_PATH "/%s", id);
    return send_request(registration, "DELETE", path, on_done);
}

/* The id of what there is; "" for none. */
static const char *present_id(const struct registration *registration, const json_t *state)
{
    const struct scoreboard *scoreboard = scoreboard_of(registration);
    const char *kept = json_string_value(json_object_get(state, "id"));

    if (atomic_load(&scoreboard->has_webhook))
        return scoreboard->webhook_id;
    return is_id(kept) ? kept : "";
}

/* What is wanted is there, or takes the place of what is there. */
static void settle(struct registration *registration, const json_t *state)
{
    const struct scoreboard *scoreboard = scoreboard_of(registration);
    const char *present = present_id(registration, state);

    if (registration->url != NULL && atomic_load(&scoreboard->has_webhook) &&
        scoreboard->webhook_key == registration->key)
        return;
    if (*present != '\0' && send_deletion(registration, present, on_old_deleted))
        return;
    if (registration->url != NULL)
        send_registration(registration);
}

/* Settles, unless somebody else is at it. */
static void look(struct registration *registration)
{
    struct e2b_service *service =
        own_cloud_service(registration->options.host->project_dir, registration->options.environment);
    bool has_key = service != NULL;
    json_t *state;

    e2b_service_unref(service);
    if (!has_key || !take_turn(registration))
        return;
    registration->is_settled = true;
    free(registration->url);
    registration->url = e2b_webhook_receiver(registration->options.url);
    state = read_state(registration);
    if (registration->url != NULL) {
        have_secret(registration, state);
        registration->key = key_of(registration->url,
                                   registration_secret(scoreboard_of(registration), registration->options.environment));
    }
    settle(registration, state);
    json_decref(state);
    if (!registration_is_busy(registration))
        be_idle(registration);
}

void registration_start(struct registration *registration)
{
    registration->is_elected = true;
    registration_tick(registration);
}

void registration_resign(struct registration *registration)
{
    registration->is_elected = false;
}

void registration_tick(struct registration *registration)
{
    if (registration->is_elected && !registration->is_settled && !registration->is_stopping)
        look(registration);
}

/* --- the end ------------------------------------------------------------------------------------------------ */

static void on_deleted(void *context, const struct http_answer *answer)
{
    struct registration *registration = context;

    if (is_good(answer) || answer->status == 404)
        log_info("webhook: deleted its registration");
    else
        log_failure("delete its registration", answer);
    if (is_good(answer) || answer->status == 404)
        set_id(registration, ""); /* else the file names it to the next instance */
    finish(registration);
}

/* Once, whichever worker comes first. */
static void delete_present(struct registration *registration)
{
    struct scoreboard *scoreboard = scoreboard_of(registration);

    if (atomic_exchange(&scoreboard->has_webhook, false))
        (void)!send_deletion(registration, scoreboard->webhook_id, on_deleted);
}

void registration_leave(struct registration *registration)
{
    registration->is_stopping = true;
    if (registration->is_elected && !registration_is_busy(registration))
        delete_present(registration);
}

void registration_stop(struct registration *registration)
{
    registration->is_elected = true; /* as is everyone: who was may be gone */
    registration_leave(registration);
}
