#include "cli/ask.h"
#include "cli/ds.h"
#include "cli/format.h"
#include "cli/interrupt.h"
#include "cli/surroundings.h"
#include "cli/terminal.h"
#include "cli/webhook.h"
#include "common/base64.h"
#include "common/e2b_webhook.h"
#include "common/small_file.h"
#include "common/state_files.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_TIMEOUT_S     30
#define STATE_FILE_MAX_BYTES 4096
#define DIGEST_BYTES         32
#define STATUS_REFUSED       401

enum { OPTION_DIR = OPTION_ASK_OWN };

/* Names no sandbox and no run that could be. */
static const char event[] = "{\"type\":\"" E2B_EVENT_KILLED "\",\"sandbox_id\":\"ds-webhook-test\","
                            "\"event_data\":{\"sandbox_metadata\":{\"request_id\":\"ds-webhook-test\"}}}";

static const struct option longs[] = {{"project-dir", required_argument, NULL, OPTION_DIR}, OPTIONS_SERVER, {0}};

static bool take(void *context, int code, char *value)
{
    const char **project_dir = context;

    (void)code;
    *project_dir = value;
    return true;
}

/* --- the secret ------------------------------------------------------------------------------------------------- */

/* What a server with this state directory made; NULL when it cannot be read, which is told if it is there. */
static char *kept_secret(const char *command, const char *state_dir)
{
    char *path = NULL, *text = NULL, *secret = NULL;
    const char *reason, *found;
    size_t length = 0;
    json_t *state;

    if (asprintf(&path, "%s/" STATE_FILE_WEBHOOK, state_dir) < 0)
        return NULL;
    text = small_file_read(path, STATE_FILE_MAX_BYTES, &length, &reason);
    state = text != NULL ? json_loadb(text, length, 0, NULL) : NULL;
    found = field_string(state, "secret");
    if (found != NULL)
        secret = strdup(found);
    else
        fprintf(stderr, "%s: SANDSTORM_WEBHOOK_SECRET is not set, and %s: %s\n", command, path,
                text != NULL ? "holds no secret" : reason);
    small_file_free(text, length);
    json_decref(state);
    free(path);
    return secret;
}

/* To be wiped and freed; NULL: none is known. */
static char *find_secret(const struct surroundings *at, const char *command)
{
    const char *given = environment_value(at->environment, "SANDSTORM_WEBHOOK_SECRET");

    return given != NULL ? strdup(given) : kept_secret(command, at->settings->state_dir);
}

static void forget(char *secret)
{
    if (secret != NULL)
        explicit_bzero(secret, strlen(secret));
    free(secret);
}

/* The header as E2B makes it: base64 of SHA-256 over secret and body, without padding. NULL for lack of memory. */
static char *sign(const char *secret)
{
    unsigned char digest[DIGEST_BYTES];
    char encoded[BASE64_ENCODED_BYTES(DIGEST_BYTES) + 1], *header = NULL, *both = NULL;

    if (asprintf(&both, "%s%s", secret, event) < 0)
        return NULL;
    if (EVP_Digest(both, strlen(both), digest, NULL, EVP_sha256(), NULL) == 1) {
        base64_encode((const char *)digest, sizeof digest, encoded);
        encoded[sizeof encoded - 1] = '\0';
        encoded[strcspn(encoded, "=")] = '\0';
        if (asprintf(&header, E2B_WEBHOOK_SIGNATURE ": %s", encoded) < 0)
            header = NULL;
    }
    forget(both);
    return header;
}

/* --- the event -------------------------------------------------------------------------------------------------- */

static int judge(const struct ask *ask, const struct http_answer *answer, bool is_signed)
{
    if (answer->status == STATUS_REFUSED) {
        fprintf(stderr, "%s: %s refuses the signature: %s\n", ask->command, ask->endpoint.name,
                is_signed ? "it has another secret" : "it has a secret that is not known here");
        return DS_FAILED;
    }
    if (answer->status != 200) {
        http_complain(&ask->endpoint, answer);
        return DS_FAILED;
    }
    printf("%s took the %s event\n", ask->endpoint.name, is_signed ? "signed" : "unsigned");
    if (!is_signed)
        puts("it has no secret: events are counted, and end no run");
    return DS_OK;
}

static int deliver(const struct ask *ask, const char *secret)
{
    char *header = secret != NULL ? sign(secret) : NULL;
    const struct http_request request = {.method = "POST",
                                         .path = E2B_WEBHOOK_RECEIVER,
                                         .body = event,
                                         .body_length = sizeof event - 1,
                                         .header = header,
                                         .timeout_s = ANSWER_TIMEOUT_S};
    struct http_answer answer;
    enum http_result result = http_perform(&ask->endpoint, &request, &answer);
    int code = DS_FAILED;

    if (result == HTTP_INTERRUPTED) {
        code = interrupt_exit();
    } else if (result != HTTP_ANSWERED) {
        answer.status = 0;
        http_complain(&ask->endpoint, &answer);
    } else {
        code = judge(ask, &answer, header != NULL);
    }
    http_answer_release(&answer);
    free(header);
    return code;
}

int webhook_test(int argc, char *argv[], const char *usage)
{
    struct ask ask = {.usage = usage};
    const char *project_dir = NULL;
    struct surroundings at;
    int code;

    if (!ask_open(&ask, argc, argv, longs, take, &project_dir, &code))
        return code;
    if (optind < argc) {
        code = options_reject(ask.command, "test takes no words: %s", argv[optind]);
    } else if (!surroundings_open_dir(&at, ask.command, project_dir)) {
        code = DS_FAILED;
    } else {
        char *secret = find_secret(&at, ask.command);

        code = deliver(&ask, secret);
        forget(secret);
        surroundings_close(&at);
    }
    ask_close(&ask);
    return terminal_close(ask.command, stdout) ? code : DS_FAILED;
}
