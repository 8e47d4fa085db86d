/* address: which addresses are public, in every spelling that reaches one. */
#include "sandboxd/address.h"
#include "tests/unit/unit.h"

/* One row per class and edge: what is right beside a range is public, or another class. */
static const struct {
    const char *address;
    const char *word; /* of what it is; NULL: public */
} cases[] = {
    {"0.0.0.0", "this machine"},
    {"0.255.255.255", "this machine"},
    {"1.0.0.0", NULL},
    {"9.255.255.255", NULL},
    {"10.0.0.0", "private"},
    {"10.255.255.255", "private"},
    {"11.0.0.0", NULL},
    {"100.63.255.255", NULL},
    {"100.64.0.0", "private"},
    {"100.100.100.200", "private"},
    {"100.127.255.255", "private"},
    {"100.128.0.0", NULL},
    {"126.255.255.255", NULL},
    {"127.0.0.1", "loopback"},
    {"127.255.255.255", "loopback"},
    {"128.0.0.0", NULL},
    {"168.63.129.15", NULL},
    {"168.63.129.16", "metadata"},
    {"168.63.129.17", NULL},
    {"169.253.255.255", NULL},
    {"169.254.0.0", "link-local"},
    {"169.254.169.254", "metadata"},
    {"169.254.255.255", "link-local"},
    {"169.255.0.0", NULL},
    {"172.15.255.255", NULL},
    {"172.16.0.0", "private"},
    {"172.31.255.255", "private"},
    {"172.32.0.0", NULL},
    {"192.0.0.192", "reserved"},
    {"192.0.1.0", NULL},
    {"192.167.255.255", NULL},
    {"192.168.0.0", "private"},
    {"192.168.255.255", "private"},
    {"192.169.0.0", NULL},
    {"198.17.255.255", NULL},
    {"198.18.0.0", "private"},
    {"198.19.255.255", "private"},
    {"198.20.0.0", NULL},
    {"203.0.113.10", NULL},
    {"223.255.255.255", NULL},
    {"224.0.0.1", "multicast"},
    {"239.255.255.255", "multicast"},
    {"240.0.0.0", "reserved"},
    {"255.255.255.254", "reserved"},
    {"255.255.255.255", "broadcast"},

    {"::", "this machine"},
    {"::1", "loopback"},
    {"::2", "reserved"},
    {"::10.0.0.1", "reserved"},
    {"::ffff:8.8.8.8", NULL},
    {"::ffff:10.0.0.1", "private"},
    {"::ffff:127.0.0.1", "loopback"},
    {"::ffff:169.254.169.254", "metadata"},
    {"::ffff:0.0.0.0", "this machine"},
    {"::ffff:224.0.0.1", "multicast"},
    {"::ffff:0:10.0.0.1", "reserved"},
    {"64:ff9b::8.8.8.8", NULL},
    {"64:ff9b::10.0.0.1", "private"},
    {"64:ff9b::127.0.0.1", "loopback"},
    {"64:ff9b::169.254.169.254", "metadata"},
    {"64:ff9b::255.255.255.255", "broadcast"},
    {"64:ff9b:1::8.8.8.8", "private"},
    {"64:ff9b:2::8.8.8.8", "reserved"},
    {"100::1", "reserved"},
    {"1fff:ffff::1", "reserved"},
    {"2000::1", NULL},
    {"2001::1", "tunnel"},
    {"2001:1::1", NULL},
    {"2001:4860:4860::8888", NULL},
    {"2002:0a00:0001::1", "private"},
    {"2002:7f00:0001::1", "loopback"},
    {"2002:a9fe:a9fe::1", "metadata"},
    {"2002:0808:0808::1", NULL},
    {"2003::1", NULL},
    {"3fff:ffff::1", NULL},
    {"4000::1", "reserved"},
    {"fbff::1", "reserved"},
    {"fc00::1", "private"},
    {"fd00:ec2::254", "metadata"},
    {"fd00:ec2::253", "private"},
    {"fdff:ffff::1", "private"},
    {"fe00::1", "reserved"},
    {"fe80::1", "link-local"},
    {"febf::1", "link-local"},
    {"fec0::1", "private"},
    {"feff::1", "private"},
    {"ff02::1", "multicast"},
};

static void test_every_class_and_its_edges(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        union address address;
        const char *what;

        assert_true(address_parse(cases[i].address, 80, &address));
        what = address_not_public(&address);
        if ((what == NULL) != (cases[i].word == NULL) || (what != NULL && strstr(what, cases[i].word) == NULL))
            fail_msg("%s: %s", cases[i].address, what == NULL ? "public" : what);
    }
}

static void test_only_a_mapped_address_is_unmapped(void **state)
{
    union address mapped, plain, wanted;

    (void)state;
    assert_true(address_parse("::ffff:8.8.4.4", 53, &mapped));
    assert_true(address_parse("8.8.4.4", 53, &wanted));
    address_unmap(&mapped);
    assert_true(address_equal(&mapped, &wanted));
    assert_true(address_parse("64:ff9b::8.8.4.4", 53, &plain));
    mapped = plain;
    address_unmap(&mapped);
    assert_true(address_equal(&mapped, &plain));
    address_unmap(&wanted);
    assert_int_equal(wanted.any.sa_family, AF_INET);
}

static void test_addresses_have_one_spelling_here(void **state)
{
    static const char *const others[] = {"127.1", "0x7f000001", "2130706433", "0177.0.0.1",
                                         "1.2.3", "fe80::1%1",  "",           "127.0.0.1 "};
    union address address;

    (void)state;
    for (size_t i = 0; i < COUNT(others); i++)
        assert_false(address_parse(others[i], 80, &address));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_class_and_its_edges),
        cmocka_unit_test(test_only_a_mapped_address_is_unmapped),
        cmocka_unit_test(test_addresses_have_one_spelling_here),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
