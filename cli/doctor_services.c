#include "cli/doctor.h"

#include "cli/ds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_TIMEOUT_S  15
#define STATUS_REFUSED    401
#define STATUS_FORBIDDEN  403
#define ANTHROPIC_URL     "https://api.anthropic.com"
#define ANTHROPIC_VERSION "anthropic-version: 2023-06-01"
#define OPENROUTER_URL    "https://openrouter.ai/api"

/* Asks once. The status, or 0 with *error, which is the caller's to free. */
static long ask(const struct endpoint *endpoint, const char *path, char **error)
{
    const struct http_request request = {.method = "GET", .path = path, .timeout_s = ANSWER_TIMEOUT_S};
    struct http_answer answer;
    bool answered = http_perform(endpoint, &request, &answer) == HTTP_ANSWERED;
    long status = answered ? answer.status : 0;

    *error = answered ? NULL : strdup(answer.error);
    http_answer_release(&answer);
    return status;
}

/* What a service said of a key. */
static void judge_key(struct doctor *doctor, const char *name, const struct endpoint *endpoint, const char *path,
                      const char *variable)
{
    char fix[96], *error;
    long status = ask(endpoint, path, &error);

    snprintf(fix, sizeof fix, "put a valid key into %s", variable);
    if (status >= 200 && status < 300)
        doctor_good(doctor, name, "%s takes %s", endpoint->name, variable);
    else if (status == STATUS_REFUSED || status == STATUS_FORBIDDEN)
        doctor_bad(doctor, name, fix, "%s refuses %s (status %ld)", endpoint->name, variable, status);
    else if (status > 0)
        doctor_note(doctor, name, "%s answers with status %ld, which says nothing about %s", endpoint->name, status,
                    variable);
    else
        doctor_bad(doctor, name, "see to the network, a proxy (HTTPS_PROXY) or the address", "cannot reach %s: %s",
                   endpoint->name, error != NULL ? error : "out of memory");
    free(error);
}

/* --- the provider ------------------------------------------------------------------------------------------- */

/* Whether one of the providers that need no key of ours is chosen; its variable. */
static const char *other_provider(const struct environment *environment)
{
    static const char *const variables[] = {"CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_BEDROCK",
                                            "CLAUDE_CODE_USE_FOUNDRY"};

    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
        if (environment_value(environment, variables[i]) != NULL)
            return variables[i];
    }
    return NULL;
}

static void ask_provider(struct doctor *doctor, const char *url, const char *prefix, const char *key, const char *path,
                         const char *variable)
{
    struct endpoint endpoint;
    struct curl_slist *longer;
    char *header = NULL;

    if (asprintf(&header, "%s%s", prefix, key) < 0)
        return;
    if (endpoint_open_url(&endpoint, doctor->command, url, header) &&
        (longer = curl_slist_append(endpoint.headers, ANTHROPIC_VERSION)) != NULL) {
        endpoint.headers = longer;
        judge_key(doctor, "provider key", &endpoint, path, variable);
    }
    endpoint_close(&endpoint);
    free(header);
}

void doctor_check_provider(struct doctor *doctor)
{
    const struct environment *environment = doctor->at.environment;
    const char *anthropic = environment_value(environment, "ANTHROPIC_API_KEY");
    const char *openrouter = environment_value(environment, "OPENROUTER_API_KEY");
    const char *url = environment_value(environment, "ANTHROPIC_BASE_URL");
    const char *other = other_provider(environment);

    if (other != NULL) {
        doctor_good(doctor, "provider", "%s is set; its own variables are not looked at", other);
    } else if (openrouter != NULL) {
        doctor_good(doctor, "provider", "OPENROUTER_API_KEY is set");
        if (doctor->deep && url == NULL)
            ask_provider(doctor, OPENROUTER_URL, "Authorization: Bearer ", openrouter, "/v1/key", "OPENROUTER_API_KEY");
    } else if (anthropic != NULL) {
        doctor_good(doctor, "provider", "ANTHROPIC_API_KEY is set");
        if (doctor->deep)
            ask_provider(doctor, url != NULL ? url : ANTHROPIC_URL, "x-api-key: ", anthropic, "/v1/models?limit=1",
                         "ANTHROPIC_API_KEY");
    } else if (url != NULL) {
        doctor_good(doctor, "provider", "ANTHROPIC_BASE_URL is set");
    } else {
        doctor_bad(
            doctor, "provider",
            "set ANTHROPIC_API_KEY or OPENROUTER_API_KEY in the environment or .env (requests may bring their own)",
            "no key for a model");
    }
}

/* --- E2B ---------------------------------------------------------------------------------------------------- */

static void check_reach(struct doctor *doctor, const struct endpoint *endpoint)
{
    char *error;
    long status = ask(endpoint, "/health", &error);

    if (status >= 200 && status < 300)
        doctor_good(doctor, "E2B's answer", "%s is healthy", endpoint->name);
    else if (status > 0)
        doctor_bad(doctor, "E2B's answer", "see E2B_API_URL and E2B_DOMAIN, or wait",
                   "%s/health answers with status %ld", endpoint->name, status);
    else
        doctor_bad(doctor, "E2B's answer", "see to the network, a proxy (setting proxy, HTTPS_PROXY) or ca_file",
                   "cannot reach %s: %s", endpoint->name, error != NULL ? error : "out of memory");
    free(error);
}

void doctor_check_e2b(struct doctor *doctor)
{
    const char *key = environment_value(doctor->at.environment, "E2B_API_KEY");
    struct endpoint endpoint;

    if (key == NULL)
        doctor_bad(doctor, "E2B key",
                   "set E2B_API_KEY in the environment or .env, or runtime = local (requests may bring their own)",
                   "E2B_API_KEY is not set");
    else
        doctor_good(doctor, "E2B key", "E2B_API_KEY is set");
    if (surroundings_open_e2b(&doctor->at, doctor->command, key != NULL ? key : "", &endpoint)) {
        check_reach(doctor, &endpoint);
        if (doctor->deep && key != NULL)
            judge_key(doctor, "E2B key taken", &endpoint, "/v2/sandboxes?limit=1", "E2B_API_KEY");
    }
    endpoint_close(&endpoint);
}
