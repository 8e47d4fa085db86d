#include "worker/proxy_header.h"

#include "worker/peers.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#define V1_MAX_BYTES      107
#define V2_FIXED_BYTES    16
#define V2_COMMAND_LOCAL  0x20
#define V2_COMMAND_PROXY  0x21
#define V2_FAMILY_MASK    0xf0
#define V2_FAMILY_IPV4    0x10
#define V2_FAMILY_IPV6    0x20
#define V2_IPV4_BYTES     12 /* two addresses and two ports */
#define V2_IPV6_BYTES     36
#define V2_TRANSPORT_MASK 0x0f
#define V2_TRANSPORT_MAX  2
#define V2_FAMILY_MAX     0x30

static const char v1_signature[] = "PROXY ";
static const unsigned char v2_signature[12] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};

static size_t smaller(size_t left, size_t right)
{
    return left < right ? left : right;
}

static bool is_port(const char *text)
{
    size_t digits = strspn(text, "0123456789");
    unsigned value = 0;

    for (size_t i = 0; i < digits && i < 6; i++)
        value = value * 10 + (unsigned)(text[i] - '0');
    return digits >= 1 && digits <= 5 && text[digits] == '\0' && value <= 65535 && (digits == 1 || *text != '0');
}

/* The next word, which ends with one blank or the end of the line; NULL: there is none. */
static char *next_word(char **rest)
{
    char *word = strsep(rest, " ");

    return word != NULL && *word != '\0' ? word : NULL;
}

/* "TCP4 source destination port port", "TCP6 …", "UNKNOWN …", without the line's end. */
static enum proxy_header_result read_line(char *line, char name[static INET6_ADDRSTRLEN])
{
    enum { SOURCE, DESTINATION, SOURCE_PORT, DESTINATION_PORT, WORDS };
    char *rest = line;
    const char *family = next_word(&rest), *words[WORDS];
    unsigned char parsed[sizeof(struct in6_addr)], other[sizeof(struct in6_addr)];
    int domain;

    if (family != NULL && strcmp(family, "UNKNOWN") == 0)
        return PROXY_HEADER_DONE;
    if (family == NULL || (strcmp(family, "TCP4") != 0 && strcmp(family, "TCP6") != 0))
        return PROXY_HEADER_BAD;
    domain = family[3] == '4' ? AF_INET : AF_INET6;
    for (size_t i = 0; i < WORDS; i++) {
        words[i] = next_word(&rest);
        if (words[i] == NULL)
            return PROXY_HEADER_BAD;
    }
    if (rest != NULL || inet_pton(domain, words[SOURCE], parsed) != 1 ||
        inet_pton(domain, words[DESTINATION], other) != 1 || !is_port(words[SOURCE_PORT]) ||
        !is_port(words[DESTINATION_PORT]))
        return PROXY_HEADER_BAD;
    if (domain == AF_INET)
        inet_ntop(AF_INET, parsed, name, INET6_ADDRSTRLEN);
    else
        peers_name_ipv6((const struct in6_addr *)(const void *)parsed, name);
    return PROXY_HEADER_DONE;
}

static enum proxy_header_result read_v1(const char *bytes, size_t available, size_t *length,
                                        char name[static INET6_ADDRSTRLEN])
{
    size_t looked = smaller(available, V1_MAX_BYTES);
    const char *end = memchr(bytes, '\n', looked);
    char line[V1_MAX_BYTES + 1];
    size_t text;

    if (end == NULL)
        return looked < V1_MAX_BYTES ? PROXY_HEADER_MORE : PROXY_HEADER_BAD;
    *length = (size_t)(end - bytes) + 1;
    text = sizeof v1_signature - 1;
    if (*length < text + 2 || end[-1] != '\r' || memchr(bytes, '\0', *length) != NULL)
        return PROXY_HEADER_BAD;
    snprintf(line, sizeof line, "%.*s", (int)(*length - text - 2), bytes + text);
    return read_line(line, name);
}

/* The addresses of a whole version 2 header. */
static enum proxy_header_result read_addresses(const unsigned char *bytes, size_t size,
                                               char name[static INET6_ADDRSTRLEN])
{
    unsigned char family = bytes[13] & V2_FAMILY_MASK;
    struct in6_addr ipv6;

    if (bytes[12] == V2_COMMAND_LOCAL)
        return PROXY_HEADER_DONE;
    if (family > V2_FAMILY_MAX || (bytes[13] & V2_TRANSPORT_MASK) > V2_TRANSPORT_MAX)
        return PROXY_HEADER_BAD;
    if ((family == V2_FAMILY_IPV4 && size < V2_IPV4_BYTES) || (family == V2_FAMILY_IPV6 && size < V2_IPV6_BYTES))
        return PROXY_HEADER_BAD;
    if (family == V2_FAMILY_IPV4) {
        inet_ntop(AF_INET, bytes + V2_FIXED_BYTES, name, INET6_ADDRSTRLEN);
    } else if (family == V2_FAMILY_IPV6) {
        memcpy(&ipv6, bytes + V2_FIXED_BYTES, sizeof ipv6);
        peers_name_ipv6(&ipv6, name);
    }
    return PROXY_HEADER_DONE;
}

static enum proxy_header_result read_v2(const char *text, size_t available, size_t *length,
                                        char name[static INET6_ADDRSTRLEN])
{
    const unsigned char *bytes = (const unsigned char *)text;
    size_t size;

    if (available > 12 && bytes[12] != V2_COMMAND_LOCAL && bytes[12] != V2_COMMAND_PROXY)
        return PROXY_HEADER_BAD;
    if (available < V2_FIXED_BYTES)
        return PROXY_HEADER_MORE;
    size = (size_t)bytes[14] << 8 | bytes[15];
    *length = V2_FIXED_BYTES + size;
    if (*length > PROXY_HEADER_MAX_BYTES)
        return PROXY_HEADER_BAD;
    return available < *length ? PROXY_HEADER_MORE : read_addresses(bytes, size, name);
}

enum proxy_header_result proxy_header_read(const char *bytes, size_t available, size_t *length,
                                           char name[static INET6_ADDRSTRLEN])
{
    *name = '\0';
    *length = 0;
    if (memcmp(bytes, v2_signature, smaller(available, sizeof v2_signature)) == 0)
        return available < sizeof v2_signature ? PROXY_HEADER_MORE : read_v2(bytes, available, length, name);
    if (memcmp(bytes, v1_signature, smaller(available, sizeof v1_signature - 1)) == 0)
        return available < sizeof v1_signature - 1 ? PROXY_HEADER_MORE : read_v1(bytes, available, length, name);
    return PROXY_HEADER_BAD;
}
