/* Triggers of sandstorm.json: what is taken, what is refused and why; and their prompts with what requests bring. */
#include "tests/unit/unit.h"
#include "worker/json_text.h"
#include "worker/trigger.h"
#include "worker/trigger_prompt.h"

#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <sys/queue.h>

/* --- the set ---------------------------------------------------------------------------------------------- */

static char told[32768]; /* one fault a line: field and reason, warnings with a ? before */

static void on_fault(void *context, bool is_warning, const char *field, const char *reason)
{
    size_t length = strlen(told);

    (void)context;
    snprintf(told + length, sizeof told - length, "%s%s %s\n", is_warning ? "?" : "", field, reason);
}

static struct json_text checked(const char *text)
{
    struct json_text root;
    struct json_text_fault fault;

    assert_int_equal(json_text_check(text, strlen(text), &root, &fault), JSON_TEXT_OK);
    return root;
}

static struct environment *environment;

static struct trigger_set *parse(const char *text)
{
    const struct project_faults faults = {.on_fault = on_fault};

    *told = '\0';
    return trigger_set_parse(checked(text), environment, &faults);
}

static int set_up(void **state)
{
    struct environment_file *file;

    (void)state;
    setenv("HOOK_SECRET", "from the environment", 1);
    setenv("EMPTY_SECRET", "", 1);
    setenv("BAD_SECRET", "\xc3\xa9", 1);
    unsetenv("NO_SECRET");
    file = environment_file_new("/nonexistent");
    environment = environment_current(file);
    environment_file_free(file);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    environment_unref(environment);
    return 0;
}

static void test_a_set(void **state)
{
    struct trigger_set *set = parse(
        "[{\"name\":\"nightly\",\"type\":\"cron\",\"schedule\":\"0 3 * * *\",\"prompt\":\"Tidy up\"},"
        " {\"name\":\"hook_1\",\"type\":\"webhook\",\"path\":\"/hooks/a-b\",\"secret\":\"${HOOK_SECRET}!\","
        "  \"prompt\":\"Look at {{body.x}}\"},"
        " {\"name\":\"d\",\"type\":\"webhook\",\"path\":\"/d\",\"secret\":\"${NO_SECRET:-fallback}\",\"prompt\":\"p\"},"
        " {\"name\":\"open\",\"type\":\"webhook\",\"path\":\"/open\",\"public\":true,\"prompt\":\"p\",\"x\":1},"
        " {\"name\":\"slack\",\"type\":\"reaction\",\"prompt\":\"p\"}]");

    (void)state;
    assert_non_null(set);
    assert_int_equal(set->count, 5);
    assert_string_equal(set->triggers[0].schedule, "0 3 * * *");
    assert_int_equal(cron_next(&set->triggers[0].cron, 0), 3 * 3600);
    assert_string_equal(json_string_value(set->triggers[1].secret), "from the environment!");
    assert_string_equal(set->triggers[1].path, "/hooks/a-b");
    assert_string_equal(json_string_value(set->triggers[2].secret), "fallback");
    assert_null(set->triggers[3].secret);
    assert_ptr_equal(trigger_set_find(set, "slack"), &set->triggers[4]);
    assert_null(trigger_set_find(set, "nobody"));
    assert_string_equal(told, "?triggers[3].x is unknown, and ignored\n"
                              "?triggers[3] is public: anybody who reaches this server can start its agent\n"
                              "?triggers[4] never fires: reactions need Slack, which this server does not serve\n");
    trigger_set_free(set);
}

#define HOOK(members) "[{\"name\":\"h\",\"type\":\"webhook\",\"prompt\":\"p\"," members "}]"
#define CRON(members) "[{\"name\":\"c\",\"type\":\"cron\",\"prompt\":\"p\"," members "}]"

static const struct {
    const char *text;
    const char *told;
} refused[] = {
    {"[1]", "triggers[0] must be an object\n"},
    {"[{}]", "triggers[0].name is missing\ntriggers[0].type is missing\ntriggers[0].prompt is missing\n"},
    {"[{\"name\":\"-a\",\"type\":\"x\",\"prompt\":\" \\n\"}]",
     "triggers[0].name must be 1 to 64 letters, digits, _ and -, and begin with a letter or digit\n"
     "triggers[0].type must be \"cron\", \"webhook\" or \"reaction\"\n"
     "triggers[0].prompt must not be blank\n"},
    {"[{\"name\":1,\"type\":null,\"prompt\":[]}]", "triggers[0].name must be a string\n"
                                                   "triggers[0].type must be a string\n"
                                                   "triggers[0].prompt must be a string\n"},
    {"[{\"name\":\"a\\u0000\",\"type\":\"cron\\u0000\",\"prompt\":\"p\"}]",
     "triggers[0].name must not hold NUL\ntriggers[0].type must not hold NUL\n"},
    {"[{\"name\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"type\":\"reaction\","
     "\"prompt\":\"p\"}]",
     "triggers[0].name must be 1 to 64 letters, digits, _ and -, and begin with a letter or digit\n"},
    {CRON("\"schedul\":\"* * * * *\""),
     "?triggers[0].schedul is unknown, and ignored\ntriggers[0].schedule is missing\n"},
    {CRON("\"schedule\":\"61 * * * *\""), "triggers[0].schedule is no schedule: the minute is not within 0-59\n"},
    {"[{\"name\":\"c\",\"type\":\"cron\",\"prompt\":\"p\",\"schedule\":\"@daily\"},"
     "{\"name\":\"c\",\"type\":\"cron\",\"prompt\":\"p\",\"schedule\":\"@daily\"}]",
     "triggers[1].name c is the name of another trigger\n"},
    {HOOK("\"secret\":\"s\""), "triggers[0].path is missing\n"},
    {HOOK("\"secret\":\"s\",\"path\":\"/a//b\""),
     "triggers[0].path must be like /name or /name/name, of letters, digits, _ and -\n"},
    {HOOK("\"secret\":\"s\",\"path\":\"/\""),
     "triggers[0].path must be like /name or /name/name, of letters, digits, _ and -\n"},
    {HOOK("\"secret\":\"s\",\"path\":\"/a/\""),
     "triggers[0].path must be like /name or /name/name, of letters, digits, _ and -\n"},
    {HOOK("\"secret\":\"s\",\"path\":\"a\""),
     "triggers[0].path must be like /name or /name/name, of letters, digits, _ and -\n"},
    {HOOK("\"secret\":\"s\",\"path\":\"/runs/x\""), "triggers[0].path /runs/x is the server's own\n"},
    {HOOK("\"secret\":\"s\",\"path\":\"/status\""), "triggers[0].path /status is the server's own\n"},
    {"[{\"name\":\"a\",\"type\":\"webhook\",\"prompt\":\"p\",\"path\":\"/x\",\"secret\":\"s\"},"
     "{\"name\":\"b\",\"type\":\"webhook\",\"prompt\":\"p\",\"path\":\"/x\",\"secret\":\"s\"}]",
     "triggers[1].path /x is the path of another trigger\n"},
    {HOOK("\"path\":\"/x\""),
     "triggers[0].secret is missing or empty: set one, or \"public\": true if anybody may start this agent\n"},
    {HOOK("\"path\":\"/x\",\"public\":false,\"secret\":\"${EMPTY_SECRET}\""),
     "triggers[0].secret is missing or empty: set one, or \"public\": true if anybody may start this agent\n"},
    {HOOK("\"path\":\"/x\",\"public\":1"), "triggers[0].public must be true or false\n"},
    {HOOK("\"path\":\"/x\",\"public\":true,\"secret\":\"${NO_SECRET}\""),
     "triggers[0].secret requires environment variable NO_SECRET to be set\n"},
    {HOOK("\"path\":\"/x\",\"secret\":\"${BAD_SECRET}\""), "triggers[0].secret must be printable ASCII\n"},
    {HOOK("\"path\":\"/x\",\"secret\":\"a\\nb\""), "triggers[0].secret must be printable ASCII\n"},
};

static void test_what_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(refused); i++) {
        if (parse(refused[i].text) != NULL || strcmp(told, refused[i].told) != 0)
            fail_msg("%s:\n%s", refused[i].text, told);
    }
}

static void test_too_many(void **state)
{
    char text[64 * 1024] = "[";
    size_t length = 1;

    (void)state;
    for (int i = 0; i < 65; i++)
        length += (size_t)snprintf(text + length, sizeof text - length,
                                   "%s{\"name\":\"c%d\",\"type\":\"cron\",\"prompt\":\"p\",\"schedule\":\"@daily\"}",
                                   i > 0 ? "," : "", i);
    snprintf(text + length, sizeof text - length, "]");
    assert_null(parse(text));
    assert_string_equal(told, "triggers[64] more than 64 triggers of type cron\n");
    length = 1;
    for (int i = 0; i < 257; i++)
        length += (size_t)snprintf(text + length, sizeof text - length,
                                   "%s{\"name\":\"c%d\",\"type\":\"reaction\",\"prompt\":\"p\"}", i > 0 ? "," : "", i);
    snprintf(text + length, sizeof text - length, "]");
    assert_null(parse(text));
    assert_non_null(strstr(told, "triggers are more than 256\n"));
}

/* Without an environment variables are left alone: what is checked then is everything else. */
static void test_a_check_without_an_environment(void **state)
{
    const struct project_faults faults = {.on_fault = on_fault};
    struct trigger_set *set =
        trigger_set_parse(checked(HOOK("\"path\":\"/x\",\"secret\":\"${NO_SECRET}\"")), NULL, &faults);

    (void)state;
    assert_non_null(set);
    trigger_set_free(set);
}

/* --- prompts ---------------------------------------------------------------------------------------------- */

static const char body[] =
    "{\"x\": \"a<b>&\\u0041\", \"n\": null, \"e\": \"\", \"big\": 123456789012345678901234567890.50,"
    " \"t\": true, \"list\": [1, {\"b\":2,\"a\":[]}, \"s\"], \"o\": { \"z\" : 1,\"a\":{ } ,\"z\":2},"
    " \"d-e_1\": \"dash\", \"0\": \"zero\", \"x\": \"<last> & wins\", \"q\": \"\\u00e9\\n\"}";

static const struct {
    const char *prompt;
    const char *body;
    const char *rendered;
} prompts[] = {
    {"no places", body, "no places"},
    {"{ {{}} {{ }} {{1}} {{body.}} {{body..x}} {{body.x }", body,
     "{ {{}} {{ }} {{1}} {{body.}} {{body..x}} {{body.x }"},
    {"{{body.x}}", body, "<trigger_value path=\"body.x\">&lt;last&gt; &amp; wins</trigger_value>"},
    {"({{ body.x\t}})", body, "(<trigger_value path=\"body.x\">&lt;last&gt; &amp; wins</trigger_value>)"},
    {"{{{body.t}}}", body, "{<trigger_value path=\"body.t\">true</trigger_value>}"},
    {"[{{body}}{{headers}}{{body.n}}{{body.e}}{{body.none.of}}{{body.t.x}}{{other.x}}{{cron}}]", body, "[]"},
    {"{{body.big}}", body, "<trigger_value path=\"body.big\">123456789012345678901234567890.50</trigger_value>"},
    {"{{body.list}}", body, "<trigger_value path=\"body.list\">[1, {\"a\": [], \"b\": 2}, \"s\"]</trigger_value>"},
    {"{{body.list.1.b}}{{body.list.3}}{{body.list.x}}", body,
     "<trigger_value path=\"body.list.1.b\">2</trigger_value>"},
    {"{{body.list.0}}", body, "<trigger_value path=\"body.list.0\">1</trigger_value>"},
    {"{{body.o}}", body, "<trigger_value path=\"body.o\">{\"a\": {}, \"z\": 2}</trigger_value>"},
    {"{{body.d-e_1}} {{body.0}}", body,
     "<trigger_value path=\"body.d-e_1\">dash</trigger_value> <trigger_value path=\"body.0\">zero</trigger_value>"},
    {"{{body.q}}", body, "<trigger_value path=\"body.q\">\xc3\xa9\n</trigger_value>"},
    {"{{body.raw}}{{body.0}}{{body.raw.1}}", "[1,\"two\"]",
     "<trigger_value path=\"body.raw\">[1, \"two\"]</trigger_value>"
     "<trigger_value path=\"body.raw.1\">two</trigger_value>"},
    {"{{body.raw}}", "\"text\"", "<trigger_value path=\"body.raw\">text</trigger_value>"},
    {"{{body.raw}}", "1.0", "<trigger_value path=\"body.raw\">1.0</trigger_value>"},
    {"{{body.raw}}|{{body.raw.x}}", "null", "|"},
    {"{{headers.x-github-event}} {{ headers.X-Two }}", body,
     "<trigger_value path=\"headers.x-github-event\">push &lt;1&gt;</trigger_value> "
     "<trigger_value path=\"headers.X-Two\">second</trigger_value>"},
    {"[{{headers.authorization}}{{headers.Cookie}}{{headers.x-sandstorm-trigger-secret}}{{headers.x-none}}"
     "{{headers.proxy-authorization}}]",
     body, "[]"},
};

static void fill(struct evkeyvalq *headers)
{
    TAILQ_INIT(headers);
    evhttp_add_header(headers, "X-GitHub-Event", "push <1>");
    evhttp_add_header(headers, "X-Two", "first");
    evhttp_add_header(headers, "x-two", "second");
    evhttp_add_header(headers, "Authorization", "Bearer secret");
    evhttp_add_header(headers, "Proxy-Authorization", "Basic secret");
    evhttp_add_header(headers, "Cookie", "secret");
    evhttp_add_header(headers, TRIGGER_SECRET_HEADER, "secret");
}

static void test_prompts(void **state)
{
    struct evkeyvalq headers;

    (void)state;
    fill(&headers);
    for (size_t i = 0; i < COUNT(prompts); i++) {
        const struct trigger_sources sources = {.body = checked(prompts[i].body), .headers = &headers};
        json_t *prompt = json_string(prompts[i].prompt);
        json_t *rendered = trigger_prompt_render(prompt, &sources);

        assert_string_equal(json_string_value(rendered), prompts[i].rendered);
        json_decref(prompt);
        json_decref(rendered);
    }
    evhttp_clear_headers(&headers);
}

static void test_a_schedule_brings_nothing(void **state)
{
    const struct trigger_sources sources = {.headers = NULL};
    json_t *prompt = json_string("Tidy up {{body.x}}{{headers.y}}now");
    json_t *rendered = trigger_prompt_render(prompt, &sources);

    (void)state;
    assert_string_equal(json_string_value(rendered), "Tidy up now");
    json_decref(prompt);
    json_decref(rendered);
}

/* A prompt may hold NUL, and so may a value. */
static void test_nul(void **state)
{
    const struct trigger_sources sources = {.body = checked("{\"x\":\"a\\u0000b\"}")};
    json_t *prompt = json_stringn("p\0{{body.x}}", 12);
    json_t *rendered = trigger_prompt_render(prompt, &sources);
    static const char expected[] = "p\0<trigger_value path=\"body.x\">a\0b</trigger_value>";

    (void)state;
    assert_int_equal(json_string_length(rendered), sizeof expected - 1);
    assert_memory_equal(json_string_value(rendered), expected, sizeof expected - 1);
    json_decref(prompt);
    json_decref(rendered);
}

/* A template cannot multiply a large body without bound. */
static void test_growth_is_stopped(void **state)
{
    size_t length = 1000000;
    char *text = malloc(length + 16), *places = calloc(1000, 16);
    struct trigger_sources sources;
    json_t *prompt, *rendered;

    (void)state;
    memset(text, 'x', length + 16);
    memcpy(text, "{\"x\":\"", 6);
    memcpy(text + length, "\"}", 3);
    for (int i = 0; i < 1000; i++)
        strcat(places + (size_t)10 * (size_t)i, "{{body.x}}");
    sources = (struct trigger_sources){.body = checked(text)};
    prompt = json_string(places);
    rendered = trigger_prompt_render(prompt, &sources);
    assert_true(json_string_length(rendered) > TRIGGER_PROMPT_STOP_BYTES);
    assert_true(json_string_length(rendered) < 2 * TRIGGER_PROMPT_STOP_BYTES);
    json_decref(prompt);
    json_decref(rendered);
    free(text);
    free(places);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_set),    cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_too_many), cmocka_unit_test(test_a_check_without_an_environment),
        cmocka_unit_test(test_prompts),  cmocka_unit_test(test_a_schedule_brings_nothing),
        cmocka_unit_test(test_nul),      cmocka_unit_test(test_growth_is_stopped),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
