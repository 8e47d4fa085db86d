/*
 * The network rules of a create: refused with a reason, or what may be reached is what was not denied; a host that is
 * said to be out of reach has no address that is in it. An input is a host, an end of line, the rules as JSON.
 */
#include "sandboxd/egress.h"
#include "tests/fuzz/fuzz.h"

static const char *const addresses[] = {"192.0.2.1",         "10.0.0.1",         "127.0.0.1",      "2001:db8::1",
                                        "64:ff9b::c000:201", "2002:c000:201::1", "::ffff:10.0.0.1"};

static void check_rules(const struct egress *egress, const json_t *network, const char *host)
{
    bool has_rules = json_array_size(json_object_get(network, "denyOut")) > 0;

    for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
        union address address;
        bool is_allowed;

        FUZZ_CHECK(address_parse(addresses[i], 443, &address));
        is_allowed = egress_allows(egress, host, &address);
        FUZZ_CHECK(is_allowed || has_rules);
        FUZZ_CHECK(!is_allowed || egress_may_allow(egress, host));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char error[EGRESS_ERROR_MAX_BYTES] = "";
    const uint8_t *rest;
    size_t rest_size, first = fuzz_first_line(data, size, &rest, &rest_size);
    char *host = fuzz_text(data, first);
    json_t *network = json_loadb((const char *)rest, rest_size, 0, NULL);
    struct egress *egress = egress_new(network, error);
    union address address;

    FUZZ_CHECK((egress == NULL) == (*error != '\0'));
    if (egress != NULL) {
        check_rules(egress, network, host);
        if (address_parse(host, 0, &address)) /* a host that is an address has just that one */
            FUZZ_CHECK(!egress_allows(egress, host, &address) || egress_may_allow(egress, host));
    }
    egress_free(egress);
    json_decref(network);
    free(host);
    return 0;
}
