/* What one sandbox gets: variables by provider (http-api.md 6.8), files in their order and without twins (6.5, 6.6). */
#include "tests/unit/unit.h"
#include "worker/agent_config.h"
#include "worker/agent_env.h"

#include <unistd.h>

static const char *const names[] = {"ANTHROPIC_API_KEY",
                                    "OPENROUTER_API_KEY",
                                    "ANTHROPIC_BASE_URL",
                                    "ANTHROPIC_AUTH_TOKEN",
                                    "CLAUDE_CODE_USE_VERTEX",
                                    "AZURE_API_KEY",
                                    "AWS_REGION",
                                    "CLAUDE_CODE_USE_BEDROCK",
                                    "ANTHROPIC_FOUNDRY_API_KEY",
                                    "CLAUDE_CODE_USE_FOUNDRY",
                                    "GOOGLE_APPLICATION_CREDENTIALS"};

/* The environment, the request's keys, the variables of the sandbox. */
static const struct {
    const char *environment; /* NAME=value NAME=value */
    const char *anthropic;
    const char *openrouter;
    const char *variables;
} providers[] = {
    {"ANTHROPIC_API_KEY=env", NULL, NULL, "{\"ANTHROPIC_API_KEY\":\"env\"}"},
    {"ANTHROPIC_API_KEY=env", "req", NULL, "{\"ANTHROPIC_API_KEY\":\"req\"}"},
    {"ANTHROPIC_API_KEY= AWS_REGION=", "req", NULL, "{\"ANTHROPIC_API_KEY\":\"req\"}"},
    {"", NULL, "or",
     "{\"ANTHROPIC_API_KEY\":\"\",\"ANTHROPIC_AUTH_TOKEN\":\"or\",\"ANTHROPIC_BASE_URL\":\"https://openrouter.ai/"
     "api\"}"},
    {"OPENROUTER_API_KEY=or", NULL, NULL,
     "{\"ANTHROPIC_API_KEY\":\"\",\"ANTHROPIC_AUTH_TOKEN\":\"or\",\"ANTHROPIC_BASE_URL\":\"https://openrouter.ai/"
     "api\"}"},
    {"OPENROUTER_API_KEY=or", "req", NULL, "{\"ANTHROPIC_API_KEY\":\"req\"}"},
    {"OPENROUTER_API_KEY=or ANTHROPIC_BASE_URL=http://p", "req", NULL,
     "{\"ANTHROPIC_API_KEY\":\"\",\"ANTHROPIC_AUTH_TOKEN\":\"or\",\"ANTHROPIC_BASE_URL\":\"http://p\"}"},
    {"ANTHROPIC_BASE_URL=http://p", "req", NULL, "{\"ANTHROPIC_API_KEY\":\"req\",\"ANTHROPIC_BASE_URL\":\"http://p\"}"},
    {"ANTHROPIC_BASE_URL=http://p ANTHROPIC_AUTH_TOKEN=t", "req", NULL,
     "{\"ANTHROPIC_API_KEY\":\"\",\"ANTHROPIC_AUTH_TOKEN\":\"t\",\"ANTHROPIC_BASE_URL\":\"http://p\"}"},
    {"CLAUDE_CODE_USE_BEDROCK=1 AWS_REGION=r", NULL, "or", "{\"AWS_REGION\":\"r\",\"CLAUDE_CODE_USE_BEDROCK\":\"1\"}"},
    {"CLAUDE_CODE_USE_FOUNDRY=1 AZURE_API_KEY=k", NULL, NULL,
     "{\"ANTHROPIC_FOUNDRY_API_KEY\":\"k\",\"AZURE_API_KEY\":\"k\",\"CLAUDE_CODE_USE_FOUNDRY\":\"1\"}"},
    {"CLAUDE_CODE_USE_FOUNDRY=1 AZURE_API_KEY=k ANTHROPIC_FOUNDRY_API_KEY=f", NULL, NULL,
     "{\"ANTHROPIC_FOUNDRY_API_KEY\":\"f\",\"AZURE_API_KEY\":\"k\",\"CLAUDE_CODE_USE_FOUNDRY\":\"1\"}"},
    {"CLAUDE_CODE_USE_VERTEX=1 GOOGLE_APPLICATION_CREDENTIALS=/x", NULL, NULL,
     "{\"CLAUDE_CODE_USE_VERTEX\":\"1\",\"GOOGLE_APPLICATION_CREDENTIALS\":\"" AGENT_VERTEX_KEY_PATH "\"}"},
};

static struct environment *environment;

static void set_environment(const char *assignments)
{
    char copy[256];

    for (size_t i = 0; i < COUNT(names); i++)
        unsetenv(names[i]);
    snprintf(copy, sizeof copy, "%s", assignments);
    for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " ")) {
        char *equals = strchr(word, '=');

        *equals = '\0';
        setenv(word, equals + 1, 1);
    }
}

static void test_each_provider_gets_its_variables_and_no_others(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(providers); i++) {
        struct query_request request = {.anthropic_api_key = (char *)providers[i].anthropic,
                                        .openrouter_api_key = (char *)providers[i].openrouter};
        const char *bad;
        json_t *env;
        char *text;

        set_environment(providers[i].environment);
        env = agent_env_build(&request, environment, &bad);
        text = json_dumps(env, JSON_COMPACT | JSON_SORT_KEYS);
        if (strcmp(text, providers[i].variables) != 0)
            fail_msg("%s:\n got    %s\n wanted %s", providers[i].environment, text, providers[i].variables);
        assert_null(bad);
        free(text);
        json_decref(env);
    }
    set_environment("ANTHROPIC_API_KEY=x");
}

/* --- files ---------------------------------------------------------------------------------------------- */

static void ignore_fault(void *context, bool is_warning, const char *field, const char *reason)
{
    (void)context;
    fail_msg("%d %s: %s", is_warning, field, reason);
}

/* The paths of the upload, one a line, for a request and a sandstorm.json; two skills are on disk. */
static char *paths_for(const char *body, const char *project_text)
{
    static struct skill_file one_files[] = {{"SKILL.md", "one", 3}, {"sub/x.md", "x", 1}};
    static struct skill_file two_files[] = {{"SKILL.md", "two", 3}};
    static struct skill skills[] = {{"one", one_files, 2}, {"two", two_files, 1}};
    static struct skill_set set = {.references = 1000, .skills = skills, .count = 2};
    const struct project_faults faults = {.on_fault = ignore_fault};
    struct agent_runner runner = {.bytes = (char *)"run", .length = 3};
    struct project *project = project_parse(project_text, strlen(project_text), &faults);
    struct query_request request;
    struct agent_sources sources = {.request = &request,
                                    .project = project,
                                    .environment = environment,
                                    .skills = &set,
                                    .runner = &runner,
                                    .project_dir = "/",
                                    .timeout_s = 300};
    struct agent_config config;
    json_t *errors;
    char *list = NULL;
    size_t size;
    FILE *out = open_memstream(&list, &size);

    assert_int_equal(query_request_parse(body, strlen(body), &request, &errors), QUERY_OK);
    if (agent_config_build(&config, &sources)) {
        for (size_t i = 0; i < config.file_count; i++)
            fprintf(out, "%s %zu\n", config.files[i].path, config.files[i].length);
    } else {
        fprintf(out, "%s", config.error);
    }
    fclose(out);
    agent_config_release(&config);
    query_request_release(&request);
    project_unref(project);
    return list;
}

#define SKILLS "/home/user/.claude/skills/"

static const struct {
    const char *request;
    const char *project;
    const char *first; /* the list up to our own files */
    int settings;      /* bytes of settings.json: 38 with skills, 91 without */
} uploads[] = {
    {"", "{}", SKILLS "one/SKILL.md 3\n" SKILLS "one/sub/x.md 1\n" SKILLS "two/SKILL.md 3\n", 38},
    {",\"allowed_skills\":[]", "{}", "", 91},
    {",\"allowed_skills\":[\"two\",\"none\"]", "{}", SKILLS "two/SKILL.md 3\n", 38},
    {",\"extra_skills\":{\"one\":\"other\",\"new\":\"n\"}", "{}",
     SKILLS "two/SKILL.md 3\n" SKILLS "one/SKILL.md 5\n" SKILLS "new/SKILL.md 1\n", 38},
    {",\"extra_skills\":{\"new\":\"n\"},\"allowed_skills\":[\"one\"]", "{}",
     SKILLS "one/SKILL.md 3\n" SKILLS "one/sub/x.md 1\n", 38},
    {",\"allowed_skills\":[]", "{\"template_skills\":true}", "", 38},
    {",\"extra_skills\":{\"one\":\"other\"}", "{\"template_skills\":true}", SKILLS "one/SKILL.md 5\n", 38},
    {",\"allowed_skills\":[\"one\"],\"files\":{\".claude/skills/one/SKILL.md\":\"mine\",\".claude/"
     "settings.json\":\"{}\"}",
     "{}", SKILLS "one/sub/x.md 1\n" SKILLS "one/SKILL.md 4\n", 38},
};

static void test_files_come_in_order_and_no_path_comes_twice(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(uploads); i++) {
        char body[256], wanted[640];
        char *list, *last;

        snprintf(body, sizeof body, "{\"prompt\":\"p\"%s}", uploads[i].request);
        list = paths_for(body, uploads[i].project);
        last = strstr(list, AGENT_CONFIG_PATH);
        assert_non_null(last);
        assert_non_null(strchr(last, '\n'));
        assert_string_equal(strchr(last, '\n'), "\n"); /* nothing comes after it */
        *last = '\0';
        snprintf(wanted, sizeof wanted, "%s/home/user/.claude/settings.json %d\n/opt/agent-runner/runner.mjs 3\n",
                 uploads[i].first, uploads[i].settings);
        if (strcmp(list, wanted) != 0)
            fail_msg("%s + %s:\n got\n%s wanted\n%s", body, uploads[i].project, list, wanted);
        free(list);
    }
}

static void test_vertex_wants_its_key_file(void **state)
{
    char path[] = "/tmp/sandstorm-vertex-XXXXXX", assignments[128];
    int fd = mkstemp(path);
    char *list;

    (void)state;
    set_environment("CLAUDE_CODE_USE_VERTEX=1");
    list = paths_for("{\"prompt\":\"p\"}", "{}");
    assert_non_null(strstr(list, "needs GOOGLE_APPLICATION_CREDENTIALS"));
    free(list);
    snprintf(assignments, sizeof assignments, "CLAUDE_CODE_USE_VERTEX=1 GOOGLE_APPLICATION_CREDENTIALS=%s", path + 1);
    set_environment(assignments); /* relative to the project directory, which is / */
    list = paths_for("{\"prompt\":\"p\"}", "{}");
    assert_non_null(strstr(list, "cannot be used")); /* empty */
    assert_null(strstr(list, path));
    free(list);
    assert_int_equal(write(fd, "{\"k\":1}", 7), 7);
    list = paths_for("{\"prompt\":\"p\",\"files\":{\".config/gcloud/service_account.json\":\"mine\"}}", "{}");
    assert_non_null(strstr(list, AGENT_VERTEX_KEY_PATH " 7\n"));
    assert_null(strstr(list, AGENT_VERTEX_KEY_PATH " 4\n"));
    free(list);
    close(fd);
    unlink(path);
    set_environment("ANTHROPIC_API_KEY=x");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_provider_gets_its_variables_and_no_others),
        cmocka_unit_test(test_files_come_in_order_and_no_path_comes_twice),
        cmocka_unit_test(test_vertex_wants_its_key_file),
    };
    struct environment_file *file = environment_file_new("/proc/self/fdinfo");
    int failed;

    environment = environment_current(file);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    environment_unref(environment);
    environment_file_free(file);
    return failed;
}
