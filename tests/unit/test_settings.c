/* One table drives argv, environment and file: precedence, units, bounds, and errors that name their source. */
#include "common/settings.h"
#include "tests/unit/unit.h"

#include <sys/stat.h>
#include <unistd.h>

static char config_path[] = "/tmp/sandstorm-settings-XXXXXX";
static char project_dir[] = "/tmp/sandstorm-project-XXXXXX";
static char dotenv_path[sizeof project_dir + 8];

static void write_text(const char *path, const char *text)
{
    FILE *out = fopen(path, "w");

    assert_non_null(out);
    fputs(text, out);
    fclose(out);
}

static void write_config(const char *text)
{
    write_text(config_path, text);
}

static void append_config(char c, int count)
{
    FILE *out = fopen(config_path, "a");

    assert_non_null(out);
    while (count-- > 0)
        putc(c, out);
    fclose(out);
}

/* Loads with the given words, which end with NULL. */
static struct settings_load *load_words(const struct settings_load *in_use, char *const words[])
{
    int count = 0;
    struct settings_load *load;

    while (words[count] != NULL)
        count++;
    load = settings_load(count, words, in_use);
    assert_non_null(load);
    return load;
}

#define LOAD(...) load_words(NULL, (char *const[]){"sandstorm", __VA_ARGS__ __VA_OPT__(, ) NULL})

/* Loads in a project with this `.env`. */
static struct settings_load *load_dotenv(const char *text)
{
    write_text(dotenv_path, text);
    return LOAD("--project-dir", project_dir);
}

static const struct settings *values_of(const struct settings_load *load)
{
    bool usage;

    assert_string_equal(settings_load_errors(load, &usage), "");
    return settings_load_values(load);
}

static void expect_error(struct settings_load *load, const char *wanted, bool wanted_usage)
{
    bool usage;
    const char *errors = settings_load_errors(load, &usage);

    if (strstr(errors, wanted) == NULL)
        fail_msg("\"%s\" is not in: %s", wanted, errors);
    assert_int_equal(usage, wanted_usage);
    settings_load_free(load);
}

static int set_up(void **state)
{
    (void)state;
    close(mkstemp(config_path));
    assert_non_null(mkdtemp(project_dir));
    snprintf(dotenv_path, sizeof dotenv_path, "%s/.env", project_dir);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(config_path);
    unlink(dotenv_path);
    return rmdir(project_dir);
}

static void test_argv_beats_environment_beats_file_beats_default(void **state)
{
    struct settings_load *load;

    (void)state;
    write_config("ping_interval = 7\nheader_timeout = 8\nbody_timeout = 9\n");
    setenv("SANDSTORM_HEADER_TIMEOUT", "18", 1);
    setenv("SANDSTORM_BODY_TIMEOUT", "19", 1);
    load = LOAD("--config", config_path, "--body-timeout", "29");
    assert_int_equal(values_of(load)->ping_interval_ms, 7000);
    assert_int_equal(values_of(load)->header_timeout_ms, 18000);
    assert_int_equal(values_of(load)->body_timeout_ms, 29000);
    assert_int_equal(values_of(load)->keepalive_timeout_ms, 75000);
    settings_load_free(load);
    unsetenv("SANDSTORM_HEADER_TIMEOUT");
    unsetenv("SANDSTORM_BODY_TIMEOUT");
}

/* The source that --check shows for a setting. */
static bool has_source(const struct settings_load *load, const char *line)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    bool found;

    settings_print(load, out);
    fclose(out);
    found = strstr(text, line) != NULL;
    free(text);
    return found;
}

static void test_dotenv_stands_between_environment_and_file(void **state)
{
    struct settings_load *load;

    (void)state;
    write_config("ping_interval = 7\nheader_timeout = 7\nbody_timeout = 7\nagent_start_timeout = 7\nbind = [::1]:1\n");
    write_text(dotenv_path, "SANDSTORM_HEADER_TIMEOUT=8\nSANDSTORM_BODY_TIMEOUT=8\nSANDSTORM_AGENT_START_TIMEOUT=8\n"
                            "SANDSTORM_KEEPALIVE_TIMEOUT=\nSANDSTORM_TEMPLATE=mine\nSANDSTORM_BIND=127.0.0.1:2\n"
                            "SANDSTORM_EXTRACT_TIMEOUT=8\n");
    setenv("SANDSTORM_BODY_TIMEOUT", "9", 1);
    setenv("SANDSTORM_AGENT_START_TIMEOUT", "9", 1);
    setenv("SANDSTORM_EXTRACT_TIMEOUT", "", 1);
    load = LOAD("--config", config_path, "--project-dir", project_dir, "--agent-start-timeout", "10");
    assert_int_equal(values_of(load)->ping_interval_ms, 7000);
    assert_int_equal(values_of(load)->header_timeout_ms, 8000);
    assert_int_equal(values_of(load)->body_timeout_ms, 9000);
    assert_int_equal(values_of(load)->agent_start_timeout_ms, 10000);
    assert_int_equal(values_of(load)->keepalive_timeout_ms, 75000);
    assert_int_equal(values_of(load)->extract_timeout_ms, 30000); /* set by the process, though empty */
    assert_string_equal(values_of(load)->template_name, "mine");
    assert_string_equal(values_of(load)->bind, "127.0.0.1:2");
    assert_string_equal(values_of(load)->project_dir, project_dir);
    assert_true(has_source(load, "# .env\nagent_sdk_version"));
    settings_load_free(load);
    unsetenv("SANDSTORM_BODY_TIMEOUT");
    unsetenv("SANDSTORM_AGENT_START_TIMEOUT");
    unsetenv("SANDSTORM_EXTRACT_TIMEOUT");
}

static void test_dotenv_is_found_through_the_file_and_knows_the_aliases(void **state)
{
    char text[sizeof project_dir + 32];
    struct settings_load *load;

    (void)state;
    snprintf(text, sizeof text, "project_dir = %s\n", project_dir);
    write_config(text);
    write_text(dotenv_path, "WEB_CONCURRENCY=5\nFORWARDED_ALLOW_IPS='10.0.0.1, 10.0.0.2'\n"
                            "SANDSTORM_PROJECT_DIR=/nowhere\nSANDSTORM_CONFIG=/nowhere\n");
    load = LOAD("--config", config_path);
    assert_string_equal(values_of(load)->project_dir, project_dir);
    assert_string_equal(settings_load_file(load), config_path);
    assert_int_equal(values_of(load)->workers, 5);
    assert_string_equal(values_of(load)->trusted_proxies, "10.0.0.1, 10.0.0.2");
    settings_load_free(load);
}

static void test_the_environment_of_a_load_is_kept(void **state)
{
    struct settings_load *load = load_dotenv("ANTHROPIC_BASE_URL=http://model.example:81/v1\nE2B_API_KEY=e2b_1\n");

    (void)state;
    assert_string_equal(values_of(load)->network_allow, "model.example:81");
    write_text(dotenv_path, "E2B_API_KEY=e2b_2\n");
    assert_string_equal(environment_value(settings_load_environment(load), "E2B_API_KEY"), "e2b_1");
    settings_load_free(load);
}

static void test_an_unreadable_dotenv_leaves_the_values_in_use(void **state)
{
    struct settings_load *before = load_dotenv("SANDSTORM_TEMPLATE=mine\n");
    struct settings_load *after;

    (void)state;
    unlink(dotenv_path);
    mkdir(dotenv_path, 0700);
    after = load_words(before, (char *const[]){"sandstorm", "--project-dir", project_dir, NULL});
    assert_string_equal(values_of(after)->template_name, "mine");
    settings_load_free(after);
    rmdir(dotenv_path);
    after = load_words(before, (char *const[]){"sandstorm", "--project-dir", project_dir, NULL});
    assert_string_equal(values_of(after)->template_name, "sandstorm");
    settings_load_free(before);
    settings_load_free(after);
}

#define KEY_OF_31_BYTES "0123456789012345678901234567890"

static void test_keys_come_from_the_environment_and_are_long(void **state)
{
    static const struct {
        const char *text, *current, *previous, *origins;
    } examples[] = {
        {"", "", "", "*"},
        {"SANDSTORM_API_KEY=\nSANDSTORM_API_KEY_PREVIOUS=\nCORS_ORIGINS=\n", "", "", "*"},
        {"SANDSTORM_API_KEY=a" KEY_OF_31_BYTES "\nSANDSTORM_API_KEY_PREVIOUS=b" KEY_OF_31_BYTES
         "\nCORS_ORIGINS='https://a.example, https://b.example'\n",
         "a" KEY_OF_31_BYTES, "b" KEY_OF_31_BYTES, "https://a.example, https://b.example"},
        {"SANDSTORM_API_KEY_PREVIOUS=" KEY_OF_31_BYTES "\n", "", "", "*"},
    };
    struct settings_load *load;

    (void)state;
    for (size_t i = 0; i < COUNT(examples); i++) {
        load = load_dotenv(examples[i].text);
        assert_string_equal(values_of(load)->api_key, examples[i].current);
        assert_string_equal(values_of(load)->api_key_previous, examples[i].previous);
        assert_string_equal(values_of(load)->cors_origins, examples[i].origins);
        settings_load_free(load);
    }
    setenv("SANDSTORM_API_KEY", "process-" KEY_OF_31_BYTES, 1);
    load = load_dotenv("SANDSTORM_API_KEY=a" KEY_OF_31_BYTES "\n");
    assert_string_equal(values_of(load)->api_key, "process-" KEY_OF_31_BYTES);
    settings_load_free(load);
    unsetenv("SANDSTORM_API_KEY");
}

static void test_units_and_spellings(void **state)
{
    struct settings_load *load = LOAD("--timeout=10m", "--ping_interval", "250ms", "--body-limit", "2MiB",
                                      "--line-limit", "8k", "--workers", "3");

    (void)state;
    assert_int_equal(values_of(load)->timeout_ms, 600000);
    assert_int_equal(values_of(load)->graceful_timeout_ms, 600000);
    assert_int_equal(values_of(load)->ping_interval_ms, 250);
    assert_int_equal(values_of(load)->body_limit_bytes, 2 << 20);
    assert_int_equal(values_of(load)->line_limit_bytes, 8192);
    assert_int_equal(values_of(load)->workers, 3);
    settings_load_free(load);
}

static void test_a_value_of_the_file_may_stand_in_quotes(void **state)
{
    struct settings_load *load;

    (void)state;
    write_config("instance = \"in-quotes\"\n  timeout=10 m\n bind = 127.0.0.1:1 , [::1]:2 \n");
    load = LOAD("--config", config_path);
    assert_string_equal(values_of(load)->instance, "in-quotes");
    assert_int_equal(values_of(load)->timeout_ms, 600000);
    settings_load_free(load);
}

static void test_workers_default_to_web_concurrency_or_twice_the_cores(void **state)
{
    struct settings_load *load = LOAD();

    (void)state;
    assert_int_equal(values_of(load)->workers, 2 * sysconf(_SC_NPROCESSORS_ONLN));
    settings_load_free(load);
    setenv("WEB_CONCURRENCY", "5", 1);
    load = LOAD();
    assert_int_equal(values_of(load)->workers, 5);
    settings_load_free(load);
    setenv("SANDSTORM_WORKERS", "6", 1);
    load = LOAD();
    assert_int_equal(values_of(load)->workers, 6);
    settings_load_free(load);
    unsetenv("WEB_CONCURRENCY");
    unsetenv("SANDSTORM_WORKERS");
}

static void test_a_list_named_twice_in_one_source_grows_and_a_stronger_source_replaces_it(void **state)
{
    struct settings_load *load;
    const char *cursor;
    char item[64];

    (void)state;
    write_config("bind = 10.0.0.1:1\n");
    load = LOAD("--config", config_path, "--bind", "127.0.0.1:1", "--bind", "[::1]:2");
    cursor = values_of(load)->bind;
    assert_true(settings_list_next(&cursor, item, sizeof item));
    assert_string_equal(item, "127.0.0.1:1");
    assert_true(settings_list_next(&cursor, item, sizeof item));
    assert_string_equal(item, "[::1]:2");
    assert_false(settings_list_next(&cursor, item, sizeof item));
    settings_load_free(load);
}

static void test_the_models_endpoint_is_what_sandboxes_may_reach(void **state)
{
    static const struct {
        const char *url, *endpoint;
    } endpoints[] = {
        {"", "api.anthropic.com:443"},
        {"http://127.0.0.1:8080/v1", "127.0.0.1:8080"},
        {"https://proxy.example", "proxy.example:443"},
        {"http://[::1]", "[::1]:80"},
        {"no URL", "api.anthropic.com:443"},
        {"https://", "api.anthropic.com:443"},
        {"https://user@proxy.example", "api.anthropic.com:443"}, /* not taken apart any further */
    };

    (void)state;
    for (size_t i = 0; i < COUNT(endpoints); i++) {
        struct settings_load *load;

        setenv("ANTHROPIC_BASE_URL", endpoints[i].url, 1);
        load = LOAD();
        assert_string_equal(values_of(load)->network_allow, endpoints[i].endpoint);
        settings_load_free(load);
    }
    unsetenv("ANTHROPIC_BASE_URL");
}

static void test_the_password_of_a_proxy_is_not_printed(void **state)
{
    struct settings_load *load = LOAD("--proxy", "http://user:se@cret@proxy.example:1");

    (void)state;
    assert_string_equal(values_of(load)->proxy, "http://user:se@cret@proxy.example:1");
    assert_true(has_source(load, "proxy = http://***@proxy.example:1 "));
    assert_false(has_source(load, "cret"));
    settings_load_free(load);
}

static void test_errors_name_their_source(void **state)
{
    struct settings_load *load;
    char wanted[128];
    bool usage;

    (void)state;
    write_config("# fine\n\nworkers = 2\nwokers = 3\nping_interval = soon\n no equals sign\n");
    snprintf(wanted, sizeof wanted, "%s:4: unknown setting \"wokers\"", config_path);
    expect_error(LOAD("--config", config_path), wanted, false);
    snprintf(wanted, sizeof wanted, "%s:5: ping_interval: \"soon\" is not a whole number", config_path);
    expect_error(LOAD("--config", config_path), wanted, false);
    snprintf(wanted, sizeof wanted, "%s:6: expected `key = value`", config_path);
    expect_error(LOAD("--config", config_path), wanted, false);
    write_config("w\x1b[2Jo = 3\ninstance = \x07\n"); /* nothing that a terminal would obey */
    snprintf(wanted, sizeof wanted, "%s:1: unknown setting \"w?[2Jo\"\n%s:2: instance: \"?\" is not", config_path,
             config_path);
    expect_error(LOAD("--config", config_path), wanted, false);
    expect_error(LOAD("--project-dir", "/nonexistent/x"), "project_dir: /nonexistent/x: No such file or directory",
                 false);
    write_config("bind = ");
    append_config('x', 5000);
    expect_error(LOAD("--config", config_path), ":1: line is longer than", false);
    expect_error(LOAD("--config", "/"), "cannot read /: Is a directory", false);
    expect_error(LOAD("--body-limit", "99999999999999GiB"), "is too large", true);
    expect_error(LOAD("--config", "/nonexistent/x"), "cannot read /nonexistent/x: No such file or directory", false);
    expect_error(LOAD("--wokers", "3"), "unknown option: --wokers", true);
    expect_error(LOAD("--workers"), "option needs a value: --workers", true);
    expect_error(LOAD("--workers", "0"), "option --workers: \"0\" is out of range (1 to 256)", true);
    expect_error(LOAD("--workers", "-1"), "is not a whole number", true);
    expect_error(LOAD("--timeout", "5x"), "has an unknown unit", true);
    expect_error(LOAD("--timeout", "99999999999999999999"), "is too large", true);
    expect_error(LOAD("--runtime", "cloud"), "option --runtime: \"cloud\" is not one of the choices", true);
    expect_error(LOAD("--instance", "a b"), "option --instance: \"a b\" is not 1 to 64 of", true);
    expect_error(LOAD("stray"), "unexpected argument: stray", true);
    expect_error(load_dotenv("SANDSTORM_WORKERS=many\n"), ".env SANDSTORM_WORKERS: \"many\" is not a whole number",
                 false);
    expect_error(load_dotenv("SANDSTORM_API_KEY=" KEY_OF_31_BYTES "\n"), "SANDSTORM_API_KEY is shorter than 32 bytes\n",
                 false);
    setenv("SANDSTORM_WORKERS", "many", 1);
    expect_error(LOAD(), "environment variable SANDSTORM_WORKERS: \"many\" is not a whole number", false);
    load = LOAD();
    assert_string_equal(settings_load_errors(load, &usage), "environment variable SANDSTORM_WORKERS: \"many\" is not a "
                                                            "whole number\n");
    settings_load_free(load);
    unsetenv("SANDSTORM_WORKERS");
}

static void test_a_reload_may_change_only_what_is_reloadable(void **state)
{
    struct settings_load *before = LOAD("--timeout", "100");
    struct settings_load *hot = LOAD("--timeout", "200", "--workers", "9", "--bind", "127.0.0.1:9");
    struct settings_load *cold = LOAD("--instance", "other");
    const char *key = NULL;

    (void)state;
    assert_true(settings_reload_allowed(before, hot, true, &key));
    assert_false(settings_reload_allowed(before, cold, false, &key));
    assert_string_equal(key, "instance");
    settings_load_free(before);
    settings_load_free(hot);
    settings_load_free(cold);
}

static void test_without_a_local_runtime_its_settings_are_reloadable(void **state)
{
    struct settings_load *before = load_dotenv("");
    struct settings_load *after = load_dotenv("ANTHROPIC_BASE_URL=http://model.example\n");
    const char *key = NULL;

    (void)state;
    assert_true(settings_reload_allowed(before, after, false, &key));
    assert_false(settings_reload_allowed(before, after, true, &key));
    assert_string_equal(key, "network_allow");
    settings_load_free(before);
    settings_load_free(after);
}

static void test_a_long_list_that_changes_at_its_end_is_noticed(void **state)
{
    enum { ITEMS = 60 };
    char before_list[ITEMS * 16], after_list[sizeof before_list + 16];
    struct settings_load *before, *after;
    const char *key = NULL;
    size_t used = 0;

    (void)state;
    for (int i = 0; i < ITEMS; i++)
        used += (size_t)snprintf(before_list + used, sizeof before_list - used, "127.0.0.1:%d,", 1000 + i);
    snprintf(after_list, sizeof after_list, "%s127.0.0.2:1", before_list);
    before = LOAD("--network-allow", before_list);
    after = LOAD("--network-allow", after_list);
    assert_false(settings_reload_allowed(before, after, true, &key));
    assert_string_equal(key, "network_allow");
    settings_load_free(before);
    settings_load_free(after);
}

static void test_actions_are_told(void **state)
{
    static const struct {
        char *word;
        enum settings_action action;
    } actions[] = {
        {"--check", SETTINGS_CHECK}, {"--help", SETTINGS_HELP}, {"-h", SETTINGS_HELP}, {"--version", SETTINGS_VERSION}};

    (void)state;
    for (size_t i = 0; i < COUNT(actions); i++) {
        struct settings_load *load = LOAD(actions[i].word);

        assert_int_equal(settings_load_action(load), actions[i].action);
        settings_load_free(load);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_argv_beats_environment_beats_file_beats_default),
        cmocka_unit_test(test_dotenv_stands_between_environment_and_file),
        cmocka_unit_test(test_dotenv_is_found_through_the_file_and_knows_the_aliases),
        cmocka_unit_test(test_the_environment_of_a_load_is_kept),
        cmocka_unit_test(test_an_unreadable_dotenv_leaves_the_values_in_use),
        cmocka_unit_test(test_keys_come_from_the_environment_and_are_long),
        cmocka_unit_test(test_units_and_spellings),
        cmocka_unit_test(test_a_value_of_the_file_may_stand_in_quotes),
        cmocka_unit_test(test_workers_default_to_web_concurrency_or_twice_the_cores),
        cmocka_unit_test(test_a_list_named_twice_in_one_source_grows_and_a_stronger_source_replaces_it),
        cmocka_unit_test(test_the_models_endpoint_is_what_sandboxes_may_reach),
        cmocka_unit_test(test_the_password_of_a_proxy_is_not_printed),
        cmocka_unit_test(test_errors_name_their_source),
        cmocka_unit_test(test_a_reload_may_change_only_what_is_reloadable),
        cmocka_unit_test(test_without_a_local_runtime_its_settings_are_reloadable),
        cmocka_unit_test(test_a_long_list_that_changes_at_its_end_is_noticed),
        cmocka_unit_test(test_actions_are_told),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
