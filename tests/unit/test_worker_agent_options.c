/* Request and project merged into agent_config.json, rule by rule (http-api.md 6.7). */
#include "tests/unit/unit.h"
#include "worker/agent_options.h"

static struct environment *environment;

static void ignore_fault(void *context, bool is_warning, const char *field, const char *reason)
{
    (void)context;
    if (!is_warning)
        fail_msg("%s: %s", field, reason);
}

/* The object for a request body and a sandstorm.json; *error as agent_options_write() gives it. */
static char *merge(const char *body, const char *project_text, bool has_skills, char **error)
{
    const struct project_faults faults = {.on_fault = ignore_fault};
    struct query_request request;
    struct project *project = project_parse(project_text, strlen(project_text), &faults);
    const struct agent_options options = {.request = &request,
                                          .project = project,
                                          .environment = environment,
                                          .timeout_s = 300,
                                          .has_skills = has_skills};
    struct evbuffer *out = evbuffer_new();
    json_t *errors;
    char *text = NULL;

    if (query_request_parse(body, strlen(body), &request, &errors) != QUERY_OK)
        fail_msg("%s is refused", body);
    if (agent_options_write(&options, out, error)) {
        evbuffer_add(out, "", 1);
        text = strdup((const char *)evbuffer_pullup(out, -1));
    }
    evbuffer_free(out);
    query_request_release(&request);
    project_unref(project);
    return text;
}

static void test_the_object_has_its_14_keys_in_order(void **state)
{
    char *error;
    char *text = merge("{\"prompt\":\"p\\u0000\"}", "{}", false, &error);

    (void)state;
    assert_string_equal(text, "{\"prompt\":\"p\\u0000\",\"cwd\":\"/home/user\",\"model\":null,\"max_turns\":null,"
                              "\"system_prompt\":null,\"output_format\":null,\"agents\":null,\"mcp_servers\":null,"
                              "\"has_skills\":false,\"allowed_tools\":null,\"timeout\":300,\"resume\":null,"
                              "\"fork_session\":null,\"max_budget_usd\":null}");
    free(text);
}

/* request (without its prompt), sandstorm.json, what the object then holds. */
static const struct {
    const char *request;
    const char *project;
    bool has_skills;
    const char *holds;
} merges[] = {
    {"", "{\"model\":\"own\",\"max_turns\":7}", false, "\"model\":\"own\",\"max_turns\":7,"},
    {"\"model\":\"mine\",\"max_turns\":3", "{\"model\":\"own\",\"max_turns\":7}", false,
     "\"model\":\"mine\",\"max_turns\":3,"},
    {"", "{\"system_prompt\":\"be\"}", false, "\"system_prompt\":\"be\","},
    {"", "{\"system_prompt\":\"be\",\"system_prompt_append\":\"kind\"}", false, "\"system_prompt\":\"be\\n\\nkind\","},
    {"", "{\"system_prompt_append\":\"kind\"}", false, "\"system_prompt\":\"kind\","},
    {"", "{\"system_prompt\":{\"type\":\"preset\",\"n\":1.50},\"system_prompt_append\":\"kind\"}", false,
     "\"system_prompt\":{\"type\":\"preset\",\"n\":1.50,\"append\":\"kind\"},"},
    {"", "{\"system_prompt\":{\"append\":\"be\",\"x\":1},\"system_prompt_append\":\"kind\"}", false,
     "\"system_prompt\":{\"append\":\"be\\n\\nkind\",\"x\":1},"},
    {"", "{\"output_format\":{\"type\":\"a\"}}", false, "\"output_format\":{\"type\":\"a\"},"},
    {"\"output_format\":{ \"z\" : 1E400, \"a\":{} }", "{\"output_format\":{\"type\":\"a\"}}", false,
     "\"output_format\":{\"z\":1E400,\"a\":{}},"},
    {"\"output_format\":{ }", "{\"output_format\":{\"type\":\"a\"}}", false, "\"output_format\":null,"},
    {"\"output_format\":null", "{\"output_format\":{}}", false, "\"output_format\":null,"},
    {"", "{\"agents\":{\"a\":{\"n\":1}}}", false, "\"agents\":{\"a\":{\"n\":1}},"},
    {"\"extra_agents\":{\"a\":{\"n\":2.0},\"b\":{}}", "{\"agents\":{\"a\":{\"n\":1},\"c\":{}}}", false,
     "\"agents\":{\"a\":{\"n\":2.0},\"c\":{},\"b\":{}},"},
    {"\"extra_agents\":{\"b\":{}},\"allowed_agents\":[\"b\",\"no\"]", "{\"agents\":{\"a\":{}}}", false,
     "\"agents\":{\"b\":{}},"},
    {"\"allowed_agents\":[]", "{\"agents\":{\"a\":{}}}", false, "\"agents\":{},"},
    {"", "{\"agents\":[{\"name\":\"a\"}]}", false, "\"agents\":[{\"name\":\"a\"}],"},
    {"\"allowed_mcp_servers\":[]", "{\"mcp_servers\":{\"s\":{\"t\":\"${SURELY_UNSET}\"}}}", false,
     "\"mcp_servers\":{},"},
    {"\"allowed_mcp_servers\":[\"b\"]", "{\"mcp_servers\":{\"a\":{\"t\":\"${SURELY_UNSET}\"},\"b\":{\"k\":1}}}", false,
     "\"mcp_servers\":{\"b\":{\"k\":1}},"},
    {"",
     "{\"mcp_servers\":{\"s\":{\"${OPTION_A}\":[\"x${OPTION_A}y${OPTION_A:-no}\",{\"d\":\"${SURELY_UNSET:-d:-e}\"}]}}}",
     false, "\"mcp_servers\":{\"s\":{\"${OPTION_A}\":[\"x\\\"A\\\"y\\\"A\\\"\",{\"d\":\"d:-e\"}]}},"},
    {"", "{\"mcp_servers\":{\"s\":{\"e\":\"<${OPTION_EMPTY:-default}>\",\"f\":\"$HOME ${ ${} ${1} ${a-b}\"}}}", false,
     "\"mcp_servers\":{\"s\":{\"e\":\"<>\",\"f\":\"$HOME ${ ${} ${1} ${a-b}\"}},"},
    {"\"allowed_mcp_servers\":[\"s\"]", "{}", false, "\"mcp_servers\":null,"},
    {"", "{\"allowed_tools\":[\"Read\"]}", false, "\"has_skills\":false,\"allowed_tools\":[\"Read\"],"},
    {"", "{\"allowed_tools\":[\"Read\"]}", true, "\"has_skills\":true,\"allowed_tools\":[\"Read\",\"Skill\"],"},
    {"", "{\"allowed_tools\":[\"Skill\",\"Read\"]}", true, "\"allowed_tools\":[\"Skill\",\"Read\"],"},
    {"\"allowed_tools\":[]", "{\"allowed_tools\":[\"Read\"]}", true, "\"allowed_tools\":[],"},
    {"\"resume\":\"s\",\"fork_session\":\"yes\",\"max_budget_usd\":\"0.1\"", "{}", false,
     "\"resume\":\"s\",\"fork_session\":true,\"max_budget_usd\":0.1}"},
    {"\"fork_session\":0,\"max_budget_usd\":1e20", "{}", false, "\"fork_session\":false,\"max_budget_usd\":1e+20}"},
};

static void test_each_rule_of_merging(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(merges); i++) {
        char body[256], *error, *text;

        snprintf(body, sizeof body, "{\"prompt\":\"p\"%s%s}", *merges[i].request != '\0' ? "," : "", merges[i].request);
        text = merge(body, merges[i].project, merges[i].has_skills, &error);
        if (text == NULL || strstr(text, merges[i].holds) == NULL)
            fail_msg("%s + %s:\n%s\ndoes not hold %s", body, merges[i].project, text != NULL ? text : error,
                     merges[i].holds);
        free(text);
    }
}

static const struct {
    const char *request;
    const char *project;
    const char *error;
} refusals[] = {
    {"{\"prompt\":\"p\"}", "{\"mcp_servers\":{\"gh\":{\"env\":{\"T\":\"a${SURELY_UNSET}\"}}}}",
     "mcp_servers.gh requires environment variable SURELY_UNSET to be set"},
    {"{\"prompt\":\"p\",\"allowed_agents\":[]}", "{\"agents\":[]}",
     "extra_agents and allowed_agents require agents to be a dict in sandstorm.json, got list"},
    {"{\"prompt\":\"p\",\"extra_agents\":{}}", "{\"agents\":[]}",
     "extra_agents and allowed_agents require agents to be a dict in sandstorm.json, got list"},
};

static void test_what_cannot_be_merged_is_told(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(refusals); i++) {
        char *error;
        char *text = merge(refusals[i].request, refusals[i].project, false, &error);

        assert_null(text);
        assert_string_equal(error, refusals[i].error);
        free(text);
        free(error);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_object_has_its_14_keys_in_order),
        cmocka_unit_test(test_each_rule_of_merging),
        cmocka_unit_test(test_what_cannot_be_merged_is_told),
    };
    struct environment_file *file;
    int failed;

    setenv("OPTION_A", "\"A\"", 1);
    setenv("OPTION_EMPTY", "", 1);
    unsetenv("SURELY_UNSET");
    file = environment_file_new("/proc/self/fdinfo");
    environment = environment_current(file);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    environment_unref(environment);
    environment_file_free(file);
    return failed;
}
