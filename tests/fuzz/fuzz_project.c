/* sandstorm.json: a version is taken or refused with a reason, never both, and what is taken makes a valid agent's
 * configuration. */
#include "tests/fuzz/fuzz.h"
#include "worker/agent_options.h"
#include "worker/json_text.h"

static void on_fault(void *context, bool is_warning, const char *field, const char *reason)
{
    size_t *errors = context;

    FUZZ_CHECK(field != NULL && *reason != '\0');
    *errors += !is_warning;
}

static void write_options(const struct project *project, const struct environment *environment)
{
    struct query_request request = {.prompt = json_string("p"), .files = json_object(), .max_budget_usd = -1};
    const struct agent_options options = {
        .request = &request, .project = project, .environment = environment, .timeout_s = 300, .has_skills = true};
    struct evbuffer *out = evbuffer_new();
    struct json_text root;
    struct json_text_fault fault;
    char *error;

    if (agent_options_write(&options, out, &error)) {
        size_t length = evbuffer_get_length(out);

        FUZZ_CHECK(json_text_check((const char *)evbuffer_pullup(out, -1), length, &root, &fault) == JSON_TEXT_OK);
    } else {
        FUZZ_CHECK(error != NULL && *error != '\0');
    }
    free(error);
    evbuffer_free(out);
    query_request_release(&request);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct environment_file *file;
    size_t errors = 0;
    const struct project_faults faults = {.on_fault = on_fault, .context = &errors};
    struct project *project = project_parse((const char *)data, size, &faults);
    struct environment *environment;

    FUZZ_CHECK((project == NULL) == (errors > 0));
    if (project == NULL)
        return 0;
    if (file == NULL)
        file = environment_file_new("/nonexistent");
    environment = environment_current(file);
    write_options(project, environment);
    environment_unref(environment);
    project_unref(project);
    return 0;
}
