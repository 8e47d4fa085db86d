/* What a request, the project and its skills are read into: each request for memory refused in turn, and each is told.
 */
#include "tests/unit/failing_memory.h"

#include "common/environment.h"
#include "common/project_store.h"
#include "worker/agent_config.h"
#include "worker/cors.h"
#include "worker/input_files.h"
#include "worker/memory_watch.h"
#include "worker/page.h"
#include "worker/project_dir.h"

#include <sys/stat.h>
#include <unistd.h>

#define BODY                                                                                                           \
    "{\"prompt\":\"h\\u00e9\\n\",\"model\":\"m\",\"timeout\":60.5e0,\"max_turns\":\"7\",\"max_budget_usd\":\"1.5\","   \
    "\"output_format\":{\"type\":\"json_schema\"},\"files\":{\"a//"                                                    \
    "b\":\"one\",\"c\":\"two\"},\"fork_session\":\"yes\","                                                             \
    "\"anthropic_api_key\":\"ka\",\"allowed_skills\":[\"one\",\"new\"],\"allowed_tools\":[\"Read\",\"Bash\"],"         \
    "\"allowed_mcp_servers\":[\"m\"],\"extra_agents\":{\"x\":{\"prompt\":\"p\"}},\"extra_skills\":{\"new\":\"text\"}}"
#define GOOD_BODY                                                                                                      \
    "{\"prompt\":\"p\",\"files\":{\"a\":\"1\",\"b\":\"2\"},\"extra_agents\":{\"x\":{}},\"extra_skills\":{\"new\":"     \
    "\"n\"},"                                                                                                          \
    "\"output_format\":{},\"model\":\"m\",\"max_turns\":3,\"anthropic_api_key\":\"k\",\"allowed_tools\":[\"Read\"],"   \
    "\"max_budget_usd\":2.5}"
#define PROJECT                                                                                                        \
    "{\"system_prompt\":{\"preset\":\"p\"},\"model\":\"m\",\"agents\":{\"a\":{\"prompt\":\"q\"}},\"allowed_tools\":"   \
    "[\"Read\"],\"mcp_servers\":{\"m\":{\"command\":\"c\",\"env\":{\"T\":\"${HOME}\"}}},\"runtime\":{\"provider\":"    \
    "\"local\",\"more\":1},\"skills_dir\":\"skills\",\"modle\":1}"

static char home[] = "/tmp/sandstorm-memory-XXXXXX";
static struct environment *environment;
static struct event_base *base;
static struct query_request request;
static struct project *project;
static struct project_store *store;

static void put(const char *name, const char *text)
{
    char path[128];
    FILE *out;

    snprintf(path, sizeof path, "%s/%s", home, name);
    out = fopen(path, "w");
    assert_non_null(out);
    fputs(text, out);
    fclose(out);
}

static const char *at(const char *name)
{
    static char path[128];

    snprintf(path, sizeof path, "%s/%s", home, name);
    return path;
}

/* --- a request ------------------------------------------------------------------------------------------ */

static bool parse(const char *body, enum query_result wanted)
{
    struct query_request parsed;
    json_t *errors;
    enum query_result result = query_request_parse(body, strlen(body), &parsed, &errors);

    json_decref(errors);
    query_request_release(&parsed);
    assert_true(result == wanted || result == QUERY_NO_MEMORY);
    return result == wanted;
}

static bool parse_good(void)
{
    return parse(BODY, QUERY_BAD_FIELDS); /* of its timeout */
}

static void test_a_request(void **state)
{
    (void)state;
    memory_sweep("query_request_parse", parse_good);
}

static bool make_inputs(void)
{
    struct input_files *inputs = input_files_new(request.files);

    input_files_free(inputs);
    return inputs != NULL;
}

static void test_its_files(void **state)
{
    (void)state;
    memory_sweep("input_files_new", make_inputs);
}

static bool make_cors(void)
{
    struct cors *cors = cors_new("https://a.example,https://b.example");

    cors_free(cors);
    return cors != NULL;
}

static void test_the_origins(void **state)
{
    (void)state;
    memory_sweep("cors_new", make_cors);
}

/* --- a project ------------------------------------------------------------------------------------------ */

static void ignore_fault(void *context, bool is_warning, const char *field, const char *reason)
{
    (void)context;
    (void)is_warning;
    (void)field;
    (void)reason;
}

static struct project *read_project(void)
{
    return project_parse(PROJECT, strlen(PROJECT), &(struct project_faults){.on_fault = ignore_fault});
}

static bool parse_project(void)
{
    struct project *read = read_project();

    project_unref(read);
    return read != NULL;
}

static void test_a_project(void **state)
{
    (void)state;
    memory_sweep("project_parse", parse_project);
}

static bool check_skills(void)
{
    const char *reason = NULL;

    return skills_check(at("skills"), &reason);
}

static void test_its_skills(void **state)
{
    (void)state;
    memory_sweep("skills_check", check_skills);
}

static bool make_tree(void)
{
    struct skill_tree *tree = skill_tree_new(base, at("skills"));
    bool whole = tree != NULL && skill_tree_current(tree)->count == 1;

    skill_tree_free(tree);
    return whole;
}

static void test_the_tree_of_its_skills(void **state)
{
    (void)state;
    memory_sweep("skill_tree_new", make_tree);
}

static bool build_config(void)
{
    static struct skill_file files[] = {{"SKILL.md", "one", 3}, {"sub/x.md", "x", 1}};
    static struct skill skills[] = {{"one", files, 2}};
    static struct skill_set set = {.references = 1000, .skills = skills, .count = 1};
    static const struct agent_runner runner = {.bytes = (char *)"run", .length = 3};
    const struct agent_sources sources = {.request = &request,
                                          .project = project,
                                          .environment = environment,
                                          .skills = &set,
                                          .runner = &runner,
                                          .project_dir = home,
                                          .timeout_s = 300};
    struct agent_config config;
    bool good = agent_config_build(&config, &sources);

    agent_config_release(&config);
    return good;
}

static void test_what_one_sandbox_gets(void **state)
{
    (void)state;
    memory_sweep("agent_config_build", build_config);
}

static bool load_runner(void)
{
    struct agent_runner runner;
    bool good = agent_runner_load(&runner, at("runner.mjs"));

    agent_runner_release(&runner);
    return good;
}

static void test_the_runner(void **state)
{
    (void)state;
    memory_sweep("agent_runner_load", load_runner);
}

/* There is none, or it is whole: what could not be read is read again, or taken from the store. */
static bool open_directory(void)
{
    struct project_dir *dir = project_dir_new(base, home, store, environment);
    struct project_view view;
    bool whole = true;

    if (dir != NULL) {
        view = project_dir_look(dir);
        whole = view.project->model != NULL && environment_get(view.environment, "NAME") != NULL;
        project_view_release(&view);
    }
    project_dir_free(dir);
    return whole;
}

static void test_its_directory(void **state)
{
    (void)state;
    memory_survive("project_dir_new", open_directory);
}

static int set_up(void **state)
{
    struct environment_file *file;
    json_t *errors;

    (void)state;
    if (mkdtemp(home) == NULL || mkdir(at("skills"), 0700) < 0 || mkdir(at("skills/one"), 0700) < 0)
        return -1;
    put("skills/one/SKILL.md", "one");
    put("skills/one/x.md", "x");
    put("skills/none", "x");
    put("runner.mjs", "run");
    put("sandstorm.json", PROJECT);
    file = environment_file_new(home);
    environment = environment_current(file);
    environment_file_free(file);
    put(".env", "NAME=value\n");
    base = event_base_new();
    if (query_request_parse(GOOD_BODY, strlen(GOOD_BODY), &request, &errors) != QUERY_OK)
        return -1;
    project = read_project();
    store = project_store_new();
    return base == NULL || project == NULL || !project_dir_check(home, environment, store);
}

static int tear_down(void **state)
{
    static const char *const files[] = {"skills/one/SKILL.md", "skills/one/x.md", "skills/none",
                                        "runner.mjs",          "sandstorm.json",  ".env",
                                        "skills/one",          "skills",          ""};

    (void)state;
    project_unref(project);
    project_store_free(store);
    query_request_release(&request);
    event_base_free(base);
    environment_unref(environment);
    for (size_t i = 0; i < COUNT(files); i++)
        remove(at(files[i]));
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_request),
        cmocka_unit_test(test_its_files),
        cmocka_unit_test(test_the_origins),
        cmocka_unit_test(test_a_project),
        cmocka_unit_test(test_its_skills),
        cmocka_unit_test(test_the_tree_of_its_skills),
        cmocka_unit_test(test_what_one_sandbox_gets),
        cmocka_unit_test(test_the_runner),
        cmocka_unit_test(test_its_directory),
    };

    memory_watch_start();
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
