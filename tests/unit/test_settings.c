/* One table drives argv, environment and file: precedence, units, bounds, and errors that name their source. */
#include "common/settings.h"
#include "tests/unit/unit.h"

#include <unistd.h>

static char config_path[] = "/tmp/sandstorm-settings-XXXXXX";

static void write_config(const char *text)
{
    FILE *out = fopen(config_path, "w");

    assert_non_null(out);
    fputs(text, out);
    fclose(out);
}

/* Loads with the given words, which end with NULL. */
static struct settings_load *load_words(char *const words[])
{
    int count = 0;
    struct settings_load *load;

    while (words[count] != NULL)
        count++;
    load = settings_load(count, words);
    assert_non_null(load);
    return load;
}

#define LOAD(...) load_words((char *const[]){"sandstorm", __VA_ARGS__ __VA_OPT__(, ) NULL})

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
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(config_path);
    return 0;
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

static void test_errors_name_their_source(void **state)
{
    char wanted[128];

    (void)state;
    write_config("# fine\n\nworkers = 2\nwokers = 3\nping_interval = soon\n no equals sign\n");
    snprintf(wanted, sizeof wanted, "%s:4: unknown setting \"wokers\"", config_path);
    expect_error(LOAD("--config", config_path), wanted, false);
    snprintf(wanted, sizeof wanted, "%s:5: ping_interval: \"soon\" is not a whole number", config_path);
    expect_error(LOAD("--config", config_path), wanted, false);
    snprintf(wanted, sizeof wanted, "%s:6: expected `key = value`", config_path);
    expect_error(LOAD("--config", config_path), wanted, false);
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
    setenv("SANDSTORM_WORKERS", "many", 1);
    expect_error(LOAD(), "environment variable SANDSTORM_WORKERS: \"many\" is not a whole number", false);
    unsetenv("SANDSTORM_WORKERS");
}

static void test_a_reload_may_change_only_what_is_reloadable(void **state)
{
    struct settings_load *before = LOAD("--timeout", "100");
    struct settings_load *hot = LOAD("--timeout", "200", "--workers", "9");
    struct settings_load *cold = LOAD("--bind", "127.0.0.1:9");
    const char *key = NULL;

    (void)state;
    assert_true(settings_reload_allowed(before, hot, &key));
    assert_false(settings_reload_allowed(before, cold, &key));
    assert_string_equal(key, "bind");
    settings_load_free(before);
    settings_load_free(hot);
    settings_load_free(cold);
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
    before = LOAD("--bind", before_list);
    after = LOAD("--bind", after_list);
    assert_false(settings_reload_allowed(before, after, &key));
    assert_string_equal(key, "bind");
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
        cmocka_unit_test(test_units_and_spellings),
        cmocka_unit_test(test_workers_default_to_web_concurrency_or_twice_the_cores),
        cmocka_unit_test(test_a_list_named_twice_in_one_source_grows_and_a_stronger_source_replaces_it),
        cmocka_unit_test(test_the_models_endpoint_is_what_sandboxes_may_reach),
        cmocka_unit_test(test_errors_name_their_source),
        cmocka_unit_test(test_a_reload_may_change_only_what_is_reloadable),
        cmocka_unit_test(test_a_long_list_that_changes_at_its_end_is_noticed),
        cmocka_unit_test(test_actions_are_told),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
