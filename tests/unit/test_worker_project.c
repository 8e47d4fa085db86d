/* sandstorm.json: each field's rule, and the reason that is given when it is broken (http-api.md 15.1). */
#include "tests/unit/unit.h"
#include "worker/project.h"

struct heard {
    char faults[512];
    char warnings[512];
};

static void on_fault(void *context, bool is_warning, const char *field, const char *reason)
{
    struct heard *heard = context;
    char *list = is_warning ? heard->warnings : heard->faults;
    size_t used = strlen(list);

    snprintf(list + used, sizeof heard->faults - used, "%s: %s\n", field, reason);
}

static const struct {
    const char *text;
    const char *faults; /* "": accepted */
    const char *warnings;
} versions[] = {
    {"{}", "", ""},
    {"{\"system_prompt\":\"s\",\"system_prompt_append\":\"a\",\"model\":\"m\",\"max_turns\":1,\"timeout\":5,"
     "\"output_format\":{},\"agents\":[],\"mcp_servers\":{},\"skills_dir\":\"x\",\"template_skills\":true,"
     "\"allowed_tools\":[],\"channels\":{},\"runtime\":{\"provider\":\"e2b\"}}",
     "", ""},
    {"{\"system_prompt\":{},\"agents\":{},\"timeout\":3600}", "", ""},
    {"", ": is not JSON: expected a value at byte 0\n", ""},
    {"[]", ": must be a JSON object\n", ""},
    {"\xff", ": is not UTF-8\n", ""},
    {"{\"model\":1}", "model: must be a string\n", ""},
    {"{\"model\":\" \\t\"}", "model: must not be blank\n", ""},
    {"{\"model\":null}", "model: must be a string\n", ""},
    {"{\"max_turns\":true}", "max_turns: must be an integer\n", ""},
    {"{\"max_turns\":1.0}", "max_turns: must be an integer\n", ""},
    {"{\"max_turns\":\"1\"}", "max_turns: must be an integer\n", ""},
    {"{\"max_turns\":0}", "max_turns: must be at least 1\n", ""},
    {"{\"timeout\":4}", "timeout: must be at least 5\n", ""},
    {"{\"timeout\":99999999999999999999}", "timeout: must be at most 3600\n", ""},
    {"{\"output_format\":[]}", "output_format: must be an object\n", ""},
    {"{\"agents\":\"x\"}", "agents: must be an object or an array\n", ""},
    {"{\"mcp_servers\":[]}", "mcp_servers: must be an object\n", ""},
    {"{\"skills_dir\":[]}", "skills_dir: must be a string\n", ""},
    {"{\"template_skills\":1}", "template_skills: must be true or false\n", ""},
    {"{\"allowed_tools\":[\"a\",1]}", "allowed_tools: must be an array of strings\n", ""},
    {"{\"system_prompt\":[]}", "system_prompt: must be a string or an object\n", ""},
    {"{\"system_prompt_append\":{}}", "system_prompt_append: must be a string\n", ""},
    {"{\"runtime\":\"e2b\"}", "runtime: must be an object\n", ""},
    {"{\"runtime\":{\"provider\":\"x\"}}", "runtime: provider must be \"e2b\" or \"local\"\n", ""},
    {"{\"runtime\":{\"provider\":\"local\",\"more\":1}}", "", "runtime.more: is unknown, and ignored\n"},
    {"{\"webhook_url\":\"ftp://x\"}", "webhook_url: must be an http or https URL\n", ""},
    {"{\"triggers\":{}}", "triggers: must be an array\n", ""},
    {"{\"channels\":[]}", "channels: must be an object\n", ""},
    {"{\"modle\":\"m\"}", "", "modle: is unknown, and ignored\n"},
    {"{\"timeout\":1,\"model\":2}", "model: must be a string\ntimeout: must be at least 5\n", ""},
};

static void test_each_version_is_taken_or_refused_with_its_reason(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(versions); i++) {
        struct heard heard = {.faults = ""};
        const struct project_faults faults = {.on_fault = on_fault, .context = &heard};
        struct project *project = project_parse(versions[i].text, strlen(versions[i].text), &faults);

        if (strcmp(heard.faults, versions[i].faults) != 0 || strcmp(heard.warnings, versions[i].warnings) != 0)
            fail_msg("%s:\n%s%s", versions[i].text, heard.faults, heard.warnings);
        assert_int_equal(project != NULL, *versions[i].faults == '\0');
        project_unref(project);
    }
}

static void test_a_version_is_bounded(void **state)
{
    struct heard heard = {.faults = ""};
    const struct project_faults faults = {.on_fault = on_fault, .context = &heard};
    char *text = calloc(1, PROJECT_MAX_BYTES + 1);

    (void)state;
    memset(text, ' ', PROJECT_MAX_BYTES + 1);
    memcpy(text, "{}", 2);
    assert_null(project_parse(text, PROJECT_MAX_BYTES + 1, &faults));
    assert_string_equal(heard.faults, ": is larger than 1 MiB\n");
    project_unref(project_parse(text, PROJECT_MAX_BYTES, &faults));
    assert_string_equal(heard.faults, ": is larger than 1 MiB\n");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_version_is_taken_or_refused_with_its_reason),
        cmocka_unit_test(test_a_version_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
