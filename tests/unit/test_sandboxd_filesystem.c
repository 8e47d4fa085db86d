/* The records that come out of a sandbox, as JSON; hostile ones too. */
#include "sandboxd/filesystem_record.h"
#include "sandboxd/init/filesystem.h"
#include "tests/unit/unit.h"

#include <string.h>
#include <sys/stat.h>

#define STRINGS "/home/user/d/f\0user\0group\0"

/* A body: a fixed part and strings. Its length. */
static size_t make_body(char *body, const void *head, size_t head_bytes, const char *strings, size_t strings_bytes)
{
    memcpy(body, head, head_bytes);
    memcpy(body + head_bytes, strings, strings_bytes);
    return head_bytes + strings_bytes;
}

static void assert_json(json_t *got, const char *expected)
{
    json_t *wanted = json_loads(expected, 0, NULL);

    assert_non_null(wanted);
    assert_non_null(got);
    assert_true(json_equal(got, wanted));
    json_decref(wanted);
    json_decref(got);
}

static void test_an_entry_is_read(void **state)
{
    const struct filesystem_entry entry = {.size = 5000000000,
                                           .modified_s = 1,
                                           .modified_ns = 500000000,
                                           .mode = S_IFREG | 0640,
                                           .target_mode = S_IFREG | 0640};
    static const char strings[] = STRINGS "k\0v";
    char body[256];
    size_t bytes = make_body(body, &entry, sizeof entry, strings, sizeof strings);

    (void)state;
    assert_json(filesystem_entry_json(body, bytes),
                "{\"name\":\"f\",\"path\":\"/home/user/d/f\",\"type\":\"FILE_TYPE_FILE\",\"size\":\"5000000000\","
                "\"mode\":416,\"permissions\":\"-rw-r-----\",\"owner\":\"user\",\"group\":\"group\","
                "\"modifiedTime\":\"1970-01-01T00:00:01.500Z\",\"metadata\":{\"k\":\"v\"}}");
}

static void test_a_link_has_the_type_of_its_target(void **state)
{
    struct filesystem_entry entry = {.mode = S_IFLNK | 0777, .target_mode = S_IFDIR | 0700};
    static const char strings[] = "/l\0u\0g\0/t";
    char body[256];
    size_t bytes = make_body(body, &entry, sizeof entry, strings, sizeof strings);

    (void)state;
    assert_json(filesystem_entry_json(body, bytes),
                "{\"name\":\"l\",\"path\":\"/l\",\"type\":\"FILE_TYPE_DIRECTORY\",\"mode\":448,\"permissions\":"
                "\"Lrwxrwxrwx\",\"owner\":\"u\",\"group\":\"g\",\"modifiedTime\":\"1970-01-01T00:00:00Z\","
                "\"symlinkTarget\":\"/t\"}");
    entry.target_mode = 0;
    make_body(body, &entry, sizeof entry, strings, sizeof strings);
    assert_json(filesystem_entry_json(body, bytes),
                "{\"name\":\"l\",\"path\":\"/l\",\"type\":\"FILE_TYPE_SYMLINK\",\"permissions\":\"Lrwxrwxrwx\","
                "\"owner\":\"u\",\"group\":\"g\",\"modifiedTime\":\"1970-01-01T00:00:00Z\",\"symlinkTarget\":\"/t\"}");
}

/* Cut anywhere before its last string's end, a body is malformed or reads nothing beyond. */
static void test_cut_bodies_are_refused(void **state)
{
    const struct filesystem_entry entry = {.mode = S_IFLNK | 0777};
    static const char strings[] = "/l\0u\0g\0/t";
    char body[256];
    size_t bytes = make_body(body, &entry, sizeof entry, strings, sizeof strings);

    (void)state;
    for (size_t length = 0; length < bytes; length++) {
        char *copy = test_malloc(length + 1);

        memcpy(copy, body, length);
        assert_null(filesystem_entry_json(copy, length));
        test_free(copy);
    }
}

static void test_a_key_without_value_is_refused(void **state)
{
    const struct filesystem_entry entry = {.mode = S_IFREG};
    static const char strings[] = STRINGS "key";
    char body[256];
    size_t bytes = make_body(body, &entry, sizeof entry, strings, sizeof strings);

    (void)state;
    assert_null(filesystem_entry_json(body, bytes));
}

static void test_events_are_read(void **state)
{
    struct filesystem_event event = {.type = FILESYSTEM_RENAME};
    char body[256];
    size_t bytes = make_body(body, &event, sizeof event, "d/f", 4);

    (void)state;
    assert_json(filesystem_event_json(body, bytes), "{\"name\":\"d/f\",\"type\":\"EVENT_TYPE_RENAME\"}");
    assert_null(filesystem_event_json(body, bytes - 1));
    event.has_entry = 1;
    make_body(body, &event, sizeof event, "d/f", 4);
    assert_null(filesystem_event_json(body, bytes));
    for (uint32_t type = 0; type < 10; type += FILESYSTEM_CHMOD + 1) {
        event = (struct filesystem_event){.type = type};
        make_body(body, &event, sizeof event, "d/f", 4);
        assert_null(filesystem_event_json(body, bytes));
    }
}

static void test_failures_are_read(void **state)
{
    uint32_t error = FILESYSTEM_EXISTS;
    enum rpc_code code = RPC_UNKNOWN;
    const char *text;
    size_t text_bytes;
    char body[16];
    size_t bytes = make_body(body, &error, sizeof error, "why", 3);

    (void)state;
    assert_true(filesystem_failure_read(body, bytes, &code, &text, &text_bytes));
    assert_int_equal(code, RPC_ALREADY_EXISTS);
    assert_int_equal(text_bytes, 3);
    assert_memory_equal(text, "why", 3);
    assert_false(filesystem_failure_read(body, 3, &code, &text, &text_bytes));
    error = FILESYSTEM_INTERNAL + 1;
    make_body(body, &error, sizeof error, "why", 3);
    assert_false(filesystem_failure_read(body, bytes, &code, &text, &text_bytes));
}

static void test_permissions_are_gos(void **state)
{
    static const struct {
        mode_t mode;
        const char *text;
    } cases[] = {
        {S_IFREG | 0644, "-rw-r--r--"},
        {S_IFDIR | 0755, "drwxr-xr-x"},
        {S_IFLNK | 0777, "Lrwxrwxrwx"},
        {S_IFDIR | S_ISVTX | 0777, "dtrwxrwxrwx"},
        {S_IFREG | S_ISUID | S_ISGID | 0751, "ugrwxr-x--x"},
        {S_IFCHR | 0666, "Dcrw-rw-rw-"},
        {S_IFBLK | 0600, "Drw-------"},
        {S_IFIFO | 0001, "p--------x"},
        {S_IFSOCK | 0020, "S----w----"},
    };
    char text[FILESYSTEM_PERMISSIONS_MAX_BYTES];

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_string_equal(filesystem_permissions(cases[i].mode, text), cases[i].text);
}

static void test_times_are_protojsons(void **state)
{
    static const struct {
        int64_t seconds;
        uint32_t nanoseconds;
        const char *text;
    } cases[] = {
        {0, 0, "1970-01-01T00:00:00Z"},
        {1787270400, 120000000, "2026-08-21T00:00:00.120Z"},
        {1787270400, 123456000, "2026-08-21T00:00:00.123456Z"},
        {1787270400, 1, "2026-08-21T00:00:00.000000001Z"},
        {-1, 0, "1969-12-31T23:59:59Z"},
    };
    char text[FILESYSTEM_TIME_MAX_BYTES];

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_string_equal(filesystem_time(cases[i].seconds, cases[i].nanoseconds, text), cases[i].text);
    filesystem_time(INT64_MAX, UINT32_MAX, text); /* no such year: any text, in bounds */
    assert_true(strlen(text) < sizeof text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_entry_is_read),       cmocka_unit_test(test_a_link_has_the_type_of_its_target),
        cmocka_unit_test(test_cut_bodies_are_refused), cmocka_unit_test(test_a_key_without_value_is_refused),
        cmocka_unit_test(test_events_are_read),        cmocka_unit_test(test_failures_are_read),
        cmocka_unit_test(test_permissions_are_gos),    cmocka_unit_test(test_times_are_protojsons),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
