/*
 * POST /webhooks/e2b: what the sandbox service tells of sandboxes (http-api.md section 13). The signature is checked
 * before the body is parsed. A sandbox that was killed ends its run at once, in whichever worker that is; deliveries
 * that come again find nothing to end.
 */
#include "common/e2b_webhook.h"
#include "common/log.h"
#include "common/log_limit.h"
#include "common/metrics.h"
#include "worker/json_member.h"
#include "worker/registration.h"
#include "worker/routes.h"
#include "worker/webhook_signature.h"

#define WORD_MAX_BYTES    128 /* of types and ids: what is longer is none of ours */
#define WORD_BUFFER_BYTES (WORD_MAX_BYTES + 1)

struct event_words {
    char type[WORD_BUFFER_BYTES];
    char sandbox_id[WORD_BUFFER_BYTES];
    char run_id[WORD_BUFFER_BYTES];
};

/* Of both spellings the first that is there. start NULL: neither. */
static struct json_text member_of(struct json_text object, const char *camel, const char *snake)
{
    struct json_text found = json_member(object, (struct span){camel, strlen(camel)});

    return found.start != NULL ? found : json_member(object, (struct span){snake, strlen(snake)});
}

/* A short string without NUL; everything else is `unknown`. */
static void read_word(struct json_text value, char out[static WORD_BUFFER_BYTES])
{
    json_t *string = value.start != NULL && json_text_type(value) == JSON_TEXT_STRING ? json_text_string(value) : NULL;
    const char *text = string != NULL ? json_string_value(string) : "";
    bool is_word = *text != '\0' && strlen(text) == json_string_length(string) && strlen(text) <= WORD_MAX_BYTES;

    snprintf(out, WORD_BUFFER_BYTES, "%s", is_word ? text : "unknown");
    json_decref(string);
}

/* False: `eventData` is no object. */
static bool read_event(struct json_text root, struct event_words *words)
{
    struct json_text data = member_of(root, "eventData", "event_data");
    struct json_text metadata;

    read_word(member_of(root, "type", "type"), words->type);
    read_word(member_of(root, "sandboxId", "sandbox_id"), words->sandbox_id);
    read_word((struct json_text){.start = NULL}, words->run_id);
    if (data.start == NULL)
        return true;
    if (json_text_type(data) != JSON_TEXT_OBJECT)
        return false;
    metadata = member_of(data, "sandbox_metadata", "sandboxMetadata");
    if (metadata.start != NULL)
        read_word(member_of(metadata, "request_id", "request_id"), words->run_id);
    return true;
}

static void log_event(const struct event_words *words, bool ends_run)
{
    char type[LOG_CLEAN_BUFFER], sandbox[LOG_CLEAN_BUFFER], run[LOG_CLEAN_BUFFER];

    log_clean(words->type, strlen(words->type), type);
    log_clean(words->sandbox_id, strlen(words->sandbox_id), sandbox);
    log_clean(words->run_id, strlen(words->run_id), run);
    if (ends_run)
        log_warn("webhook: %s sandbox=%s: its run %s ends", type, sandbox, run);
    else
        log_info_limited("webhook: %s sandbox=%s run=%s", type, sandbox, run);
}

/* True when a run is to end. */
static bool end_run(struct run_host *host, const struct event_words *words)
{
    uint64_t id, owner;

    if (strcmp(words->type, E2B_EVENT_KILLED) != 0 || !run_id_parse(words->run_id, strlen(words->run_id), &id) ||
        !run_table_report_lost(host->scoreboard, id, words->sandbox_id, &owner))
        return false;
    host->tell_owner(host->context, owner);
    return true;
}

void route_webhook(struct exchange *exchange)
{
    const struct route_context *context = exchange->context;
    const char *signature =
        evhttp_find_header(evhttp_request_get_input_headers(exchange->request), E2B_WEBHOOK_SIGNATURE);
    struct span secret = registration_secret(context->host->scoreboard, context->environment);
    struct span given = {signature, signature != NULL ? strlen(signature) : 0};
    struct event_words words;
    struct json_text root;

    if (secret.bytes != NULL &&
        !webhook_signature_fits(secret, (struct span){exchange->body, exchange->body_length}, span_trim(given))) {
        metrics_count(METRIC_ERRORS, "auth", 0, 1);
        server_reply_error(exchange, 401, "invalid signature");
        return;
    }
    if (!route_read_json(exchange, &root) || json_text_type(root) != JSON_TEXT_OBJECT) {
        server_reply_error(exchange, 400, "invalid JSON");
        return;
    }
    if (!read_event(root, &words)) {
        server_reply_error(exchange, 400, "invalid event");
        return;
    }
    metrics_count(METRIC_WEBHOOK_EVENTS, words.type, 0, 1);
    log_event(&words, secret.bytes != NULL && end_run(context->host, &words));
    server_reply_json(exchange, 200, json_pack("{s:s}", "status", "ok"));
}
