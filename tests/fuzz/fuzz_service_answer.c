/*
 * Answers of the sandbox service: a create ends once, with a sandbox whose URL leads nowhere but to it or with one line
 * of UTF-8 without keys; a list ends once, and tells only sandboxes of this instance. The first line of an input is the
 * answer's status, the domain and the like of the service being what they are.
 */
#include "common/metrics.h"
#include "tests/fuzz/fuzz_http.h"
#include "worker/e2b_call.h"
#include "worker/sandbox_list.h"
#include "worker/utf8.h"

#define API_KEY    "e2b_0123456789abcdef"
#define SECRET_ENV "sk-ant-0123456789"
/* A text as long as this may have been cut, less what stands for a secret. */
#define MESSAGE_CUT_BYTES (E2B_MESSAGE_MAX_BYTES - 64)

static struct event_base *base;

static void check_text(const char *text)
{
    FUZZ_CHECK(utf8_is_valid(text, strlen(text)) && strlen(text) < E2B_MESSAGE_MAX_BYTES);
    for (const char *c = text; *c != '\0'; c++)
        FUZZ_CHECK((unsigned char)*c >= 0x20 && *c != 0x7f);
    FUZZ_CHECK(strstr(text, API_KEY) == NULL);
    /* Nor its begin, where the text was cut. */
    for (size_t part = 8; part < sizeof API_KEY - 1 && part <= strlen(text); part++)
        FUZZ_CHECK(strlen(text) < MESSAGE_CUT_BYTES || memcmp(text + strlen(text) - part, API_KEY, part) != 0);
}

/* --- create ----------------------------------------------------------------------------------------------- */

static void on_created(void *context, const struct e2b_result *result, struct e2b_sandbox *sandbox)
{
    int *ends = context;

    (*ends)++;
    check_text(result->message);
    FUZZ_CHECK(strstr(result->message, SECRET_ENV) == NULL);
    FUZZ_CHECK((sandbox == NULL) == (result->error != RUN_ERROR_NONE));
    if (sandbox == NULL)
        return;
    FUZZ_CHECK(e2b_valid_sandbox_id(sandbox->id));
    FUZZ_CHECK(strncmp(sandbox->base_url, "https://", 8) == 0 && strpbrk(sandbox->base_url + 8, "/@?#\\ \"") == NULL);
    e2b_sandbox_free(sandbox);
}

static void play_create(struct e2b_service *service, const struct http_answer *answer)
{
    const struct e2b_context e2b = {.base = base, .service = service};
    json_t *env = json_pack("{s:s}", "ANTHROPIC_API_KEY", SECRET_ENV);
    int ends = 0;
    const struct e2b_create_request request = {.template_id = "t",
                                               .timeout_s = 300,
                                               .env = env,
                                               .run_id = "r",
                                               .instance = "i",
                                               .retry_timeout_ms = 60000,
                                               .on_created = on_created,
                                               .context = &ends};
    struct e2b_call *call = e2b_create(&e2b, &request);

    FUZZ_CHECK(call != NULL);
    fuzz_http.request.on_done(fuzz_http.request.context, answer);
    /* It is over, or waits to be sent again. */
    if (ends == 0)
        e2b_call_cancel(call);
    FUZZ_CHECK(ends <= 1);
    json_decref(env);
}

/* --- list ------------------------------------------------------------------------------------------------- */

static void on_sandbox(void *context, const struct listed_sandbox *sandbox)
{
    (void)context;
    FUZZ_CHECK(e2b_valid_sandbox_id(sandbox->id) && sandbox->run_id != NULL);
}

static void on_end(void *context, const char *error)
{
    int *ends = context;

    (*ends)++;
    if (error != NULL)
        check_text(error);
}

static void play_list(struct e2b_service *service, const struct http_answer *answer)
{
    int ends = 0;
    const struct sandbox_list_handlers handlers = {.on_sandbox = on_sandbox, .on_end = on_end, .context = &ends};
    struct sandbox_list *list = sandbox_list_start(NULL, service, "i", NULL, &handlers);

    FUZZ_CHECK(list != NULL);
    fuzz_http.next_token = NULL;
    fuzz_http.request.on_done(fuzz_http.request.context, answer);
    FUZZ_CHECK(ends == 1);
}

/* --- any failure ------------------------------------------------------------------------------------------ */

static void check_verdicts(const struct http_answer *answer)
{
    enum e2b_failure failure = e2b_classify(answer);
    const struct e2b_rpc_verdict *rpc = e2b_judge_rpc_answer(answer);
    char text[E2B_MESSAGE_MAX_BYTES];

    FUZZ_CHECK((failure == E2B_SUCCESS) == (answer->status / 100 == 2));
    FUZZ_CHECK(rpc == NULL || rpc->before_start.error != RUN_ERROR_NONE);
    for (int stage = 0; failure != E2B_SUCCESS && stage < E2B_STAGE_COUNT; stage++) {
        const struct e2b_verdict *verdict = e2b_judge((enum e2b_stage)stage, failure);

        FUZZ_CHECK(verdict->tries == E2B_TRIES_TIMED || (verdict->tries > 0 && verdict->tries < 10));
    }
    e2b_message(answer, API_KEY, text);
    check_text(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct e2b_service service = {
        .references = 1, .api_url = "https://api", .sandbox_url = "", .domain = "e2b.app", .api_key = API_KEY};
    struct http_answer answer = {
        .outcome = TRANSFER_ANSWERED, .retry_after_s = -1, .content_type = "application/json", .error = ""};
    const uint8_t *rest;
    size_t first = fuzz_first_line(data, size, &rest, &answer.body_length);
    char *line = fuzz_text(data, first), *body = fuzz_text(rest, answer.body_length);

    if (base == NULL)
        base = event_base_new();
    answer.status = 100 + abs(atoi(line)) % 500;
    answer.body = body;
    check_verdicts(&answer);
    play_create(&service, &answer);
    play_list(&service, &answer);
    FUZZ_CHECK(service.references == 1);
    free(line);
    free(body);
    return 0;
}
