/* Where a sandbox is spoken to: by the service's domain, or by what the settings say instead (e2b.md A.1). */
#include "tests/unit/unit.h"

#include "tests/unit/replaced_http.h"
#include "worker/e2b_call.h"

static struct event_base *base;
static struct e2b_sandbox *made;
static enum run_error error;

static void on_created(void *context, const struct e2b_result *result, struct e2b_sandbox *sandbox)
{
    (void)context;
    error = result->error;
    made = sandbox;
}

/* The base URL of a sandbox that the service made with this answer; NULL: it was refused. */
static const char *made_by(const char *environment_name, const char *value, const char *answer_text)
{
    static char url[256];
    struct environment_file *file = environment_file_new("/proc/self/fdinfo");
    struct environment *environment;
    json_t *env = json_object();
    const struct http_answer answer = {.outcome = TRANSFER_ANSWERED,
                                       .status = 201,
                                       .retry_after_s = -1,
                                       .content_type = "application/json",
                                       .body = answer_text,
                                       .body_length = strlen(answer_text),
                                       .error = ""};
    struct e2b_context e2b = {.base = base};

    if (environment_name != NULL)
        setenv(environment_name, value, 1);
    environment = environment_current(file);
    e2b.service = e2b_service_cloud(environment, "e2b_0123456789");
    assert_non_null(e2b_create(
        &e2b, &(struct e2b_create_request){
                  .template_id = "t", .env = env, .run_id = "r", .instance = "i", .on_created = on_created}));
    json_decref(env);
    made = NULL;
    http.request.on_done(http.request.context, &answer);
    if (made != NULL)
        snprintf(url, sizeof url, "%s", made->base_url);
    e2b_service_unref(e2b.service);
    environment_unref(environment);
    environment_file_free(file);
    if (environment_name != NULL)
        unsetenv(environment_name);
    if (made == NULL)
        return NULL;
    e2b_sandbox_free(made);
    return url;
}

#define SANDBOX "{\"sandboxID\":\"i1\",\"envdVersion\":\"0.4.2\""

static void test_the_shared_host_of_the_cloud(void **state)
{
    (void)state;
    assert_string_equal(made_by(NULL, NULL, SANDBOX "}"), "https://sandbox.e2b.app");
    assert_string_equal(http.url, "https://api.e2b.app/sandboxes");
    assert_string_equal(made_by(NULL, NULL, SANDBOX ",\"domain\":\"e2b.app\"}"), "https://sandbox.e2b.app");
}

static void test_another_domain_has_a_host_for_each(void **state)
{
    (void)state;
    assert_string_equal(made_by("E2B_DOMAIN", "e2b.example", SANDBOX "}"), "https://49983-i1.e2b.example");
    assert_string_equal(http.url, "https://api.e2b.example/sandboxes");
    assert_string_equal(made_by(NULL, NULL, SANDBOX ",\"domain\":\"eu.example:8443\"}"),
                        "https://49983-i1.eu.example:8443");
}

static void test_a_domain_that_is_no_host_name_is_not_followed(void **state)
{
    (void)state;
    assert_string_equal(made_by("E2B_DOMAIN", "e2b.example", SANDBOX ",\"domain\":\"evil.example/x?\"}"),
                        "https://49983-i1.e2b.example");
    assert_string_equal(made_by("E2B_DOMAIN", "e2b.example", SANDBOX ",\"domain\":\"\"}"),
                        "https://49983-i1.e2b.example");
}

static void test_a_url_of_the_settings_is_for_all(void **state)
{
    (void)state;
    assert_string_equal(made_by("E2B_SANDBOX_URL", "http://127.0.0.1:9", SANDBOX ",\"domain\":\"eu.example\"}"),
                        "http://127.0.0.1:9");
    (void)made_by("E2B_API_URL", "http://127.0.0.1:8//", SANDBOX "}");
    assert_string_equal(http.url, "http://127.0.0.1:8/sandboxes"); /* its slashes are not doubled */
}

static void test_an_id_that_is_none_is_refused(void **state)
{
    static const char *const answers[] = {"{}", "{\"sandboxID\":\"\"}", "{\"sandboxID\":\"../x\"}", "{\"sandboxID\":7}",
                                          "not JSON"};
    char longest[256];

    (void)state;
    for (size_t i = 0; i < COUNT(answers); i++) {
        assert_null(made_by(NULL, NULL, answers[i]));
        assert_int_equal(error, RUN_ERROR_UPSTREAM_PROTOCOL);
    }
    snprintf(longest, sizeof longest, "{\"sandboxID\":\"%0*d\"}", SANDBOX_ID_MAX_BYTES + 1, 0);
    assert_null(made_by(NULL, NULL, longest));
}

static void test_the_urls_of_files_end_where_the_base_ends(void **state)
{
    const struct e2b_sandbox sandbox = {.id = "i1", .base_url = (char *)"http://127.0.0.1:9//"};
    char *url = e2b_sandbox_url(&sandbox, "/files");

    (void)state;
    assert_string_equal(url, "http://127.0.0.1:9/files");
    free(url);
}

static int set_up(void **state)
{
    (void)state;
    base = event_base_new();
    return base == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    event_base_free(base);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_shared_host_of_the_cloud),
        cmocka_unit_test(test_another_domain_has_a_host_for_each),
        cmocka_unit_test(test_a_domain_that_is_no_host_name_is_not_followed),
        cmocka_unit_test(test_a_url_of_the_settings_is_for_all),
        cmocka_unit_test(test_an_id_that_is_none_is_refused),
        cmocka_unit_test(test_the_urls_of_files_end_where_the_base_ends),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
