/* The PROXY protocol: nothing is said before a header is whole, and what a proxy says of its client comes back. */
#include "tests/fuzz/fuzz.h"
#include "worker/proxy_header.h"

#include <arpa/inet.h>

static enum proxy_header_result read_copy(const char *bytes, size_t size, size_t *length,
                                          char name[static INET6_ADDRSTRLEN])
{
    char *copy = fuzz_text((const uint8_t *)bytes, size); /* of its own, so that a byte too far is seen */
    enum proxy_header_result result;

    copy = realloc(copy, size > 0 ? size : 1);
    result = proxy_header_read(copy, size, length, name);
    free(copy);
    return result;
}

/* Every shorter piece of a good header is fine so far; every longer one of a bad one stays bad. */
static void check_prefixes(const char *bytes, size_t size, enum proxy_header_result whole, size_t whole_length)
{
    bool was_bad = false;

    for (size_t available = 0; available < size && available < PROXY_HEADER_MAX_BYTES; available++) {
        char name[INET6_ADDRSTRLEN];
        size_t length;
        enum proxy_header_result result = read_copy(bytes, available, &length, name);

        FUZZ_CHECK(!was_bad || result == PROXY_HEADER_BAD);
        was_bad = result == PROXY_HEADER_BAD;
        if (whole == PROXY_HEADER_MORE || (whole == PROXY_HEADER_DONE && available < whole_length))
            FUZZ_CHECK(result == PROXY_HEADER_MORE);
        if (whole == PROXY_HEADER_DONE && available >= whole_length)
            FUZZ_CHECK(result == PROXY_HEADER_DONE && length == whole_length);
    }
    FUZZ_CHECK(!was_bad || whole == PROXY_HEADER_BAD);
}

/* A name is an address; said in version 1 it is the same. */
static void check_name(const char *name)
{
    bool is_v6 = strchr(name, ':') != NULL;
    unsigned char parsed[sizeof(struct in6_addr)];
    char line[128], again[INET6_ADDRSTRLEN];
    size_t length;
    int written;

    FUZZ_CHECK(inet_pton(is_v6 ? AF_INET6 : AF_INET, name, parsed) == 1);
    written = snprintf(line, sizeof line, "PROXY TCP%c %s %s 1 65535\r\n", is_v6 ? '6' : '4', name, name);
    FUZZ_CHECK(proxy_header_read(line, (size_t)written, &length, again) == PROXY_HEADER_DONE);
    FUZZ_CHECK(length == (size_t)written && strcmp(again, name) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *bytes = (const char *)data;
    char name[INET6_ADDRSTRLEN];
    size_t length;
    enum proxy_header_result result = read_copy(bytes, size, &length, name);

    FUZZ_CHECK(result != PROXY_HEADER_DONE || (length > 0 && length <= size && length <= PROXY_HEADER_MAX_BYTES));
    FUZZ_CHECK(result != PROXY_HEADER_MORE || size < PROXY_HEADER_MAX_BYTES);
    if (result == PROXY_HEADER_DONE && *name != '\0')
        check_name(name);
    check_prefixes(bytes, size, result, length);
    return 0;
}
