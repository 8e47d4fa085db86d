/* Which signatures of an event fit. The values were computed with Python's hashlib and hmac. */
#include "tests/unit/unit.h"
#include "worker/webhook_signature.h"

#define SECRET "secret"
#define BODY   "{\"a\":1}"
#define PLAIN  "N7005LKS7534v+cOP1BSYTkklJDDwllM8gF1unZl4B0"
#define HMAC   "aa9e2e3575f5d7098b6caccd790888c36d5fdb63342a73bada2d6a51747a8494"

static const struct {
    const char *signature; /* NULL: there is none */
    bool fits;
} signatures[] = {
    {PLAIN, true},
    {PLAIN "=", true},
    {"N7005LKS7534v-cOP1BSYTkklJDDwllM8gF1unZl4B0", true},
    {"N7005LKS7534v-cOP1BSYTkklJDDwllM8gF1unZl4B0=", true},
    {PLAIN "==", false},
    {PLAIN " ", false},
    {"M7005LKS7534v+cOP1BSYTkklJDDwllM8gF1unZl4B0", false},
    {"N7005LKS7534v+cOP1BSYTkklJDDwllM8gF1unZl4B", false},
    {"N7005LKS7534v+cOP1BSYTkklJDDwllM8gF1unZl4B1", false}, /* the same bytes, spelled as nobody spells them */
    {HMAC, true},
    {"sha256=" HMAC, true},
    {"SHA256=" HMAC, false},
    {"sha256=", false},
    {"sha1=" HMAC, false},
    {"0" HMAC, false},
    {"", false},
    {"\xc3\xa9", false},
    {NULL, false},
};

static struct span span_of(const char *text)
{
    return (struct span){text, text != NULL ? strlen(text) : 0};
}

static void test_signatures(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(signatures); i++) {
        if (webhook_signature_fits(span_of(SECRET), span_of(BODY), span_of(signatures[i].signature)) !=
            signatures[i].fits)
            fail_msg("%s", signatures[i].signature);
    }
}

static void test_upper_case_and_other_secrets(void **state)
{
    char upper[] = HMAC;

    (void)state;
    for (char *c = upper; *c != '\0'; c++)
        *c = (char)(*c >= 'a' && *c <= 'f' ? *c - 'a' + 'A' : *c);
    assert_true(webhook_signature_fits(span_of(SECRET), span_of(BODY), span_of(upper)));
    assert_false(webhook_signature_fits(span_of("secre7"), span_of(BODY), span_of(HMAC)));
    assert_false(webhook_signature_fits(span_of("secre7"), span_of(BODY), span_of(PLAIN)));
    assert_false(webhook_signature_fits(span_of(SECRET), span_of("{\"a\":2}"), span_of(HMAC)));
    assert_false(webhook_signature_fits(span_of(SECRET), span_of("{\"a\":2}"), span_of(PLAIN)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signatures),
        cmocka_unit_test(test_upper_case_and_other_secrets),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
