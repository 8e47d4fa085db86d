#include "sandboxd/egress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define RULE_TEXT_MAX_BYTES 254
#define V4_BITS             32
#define V6_BITS             128

/* One entry of a list: a range of addresses, or a name. */
struct rule {
    unsigned bits;         /* of the range */
    union address network; /* of the range; family AF_UNSPEC: it is a name */
    char name[RULE_TEXT_MAX_BYTES + 1];
};

struct rule_list {
    size_t count;
    struct rule *rules;
};

struct egress {
    struct rule_list allow, deny;
};

/* --- reading -------------------------------------------------------------------------------------- */

/* Reads the bits behind the slash, if there is one, and cuts them off. */
static bool read_bits(char *text, int *bits)
{
    char *slash = strchr(text, '/'), *end;

    *bits = -1;
    if (slash == NULL)
        return true;
    *slash = '\0';
    *bits = (int)strtoul(slash + 1, &end, 10);
    return slash[1] >= '0' && slash[1] <= '9' && *end == '\0' && *bits <= V6_BITS;
}

/* Whether it could be a name: a "*." in front of it stands for any number of labels. */
static bool is_name(const char *text)
{
    if (strcmp(text, "*") == 0)
        return true;
    if (strncmp(text, "*.", 2) == 0)
        text += 2;
    return *text != '\0' &&
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == strlen(text);
}

static bool read_rule(const char *text, bool takes_names, struct rule *rule)
{
    int bits, most;

    if (text == NULL || strlen(text) > RULE_TEXT_MAX_BYTES)
        return false;
    strcpy(rule->name, text);
    if (!read_bits(rule->name, &bits))
        return false;
    if (!address_parse(rule->name, 0, &rule->network)) {
        rule->network.any.sa_family = AF_UNSPEC;
        return takes_names && bits < 0 && is_name(rule->name);
    }
    most = rule->network.any.sa_family == AF_INET ? V4_BITS : V6_BITS;
    rule->bits = (unsigned)(bits < 0 ? most : bits);
    return bits <= most;
}

/* Reads one list; false with the reason. */
static bool read_list(const json_t *network, const char *key, bool takes_names, struct rule_list *list,
                      char error[static EGRESS_ERROR_MAX_BYTES])
{
    const json_t *given = json_object_get(network, key), *entry;
    size_t i;

    if (given == NULL || json_is_null(given))
        return true;
    if (!json_is_array(given) || json_array_size(given) > EGRESS_RULES_MAX) {
        snprintf(error, EGRESS_ERROR_MAX_BYTES, "network.%s must be a list of at most %d entries", key,
                 EGRESS_RULES_MAX);
        return false;
    }
    list->rules = calloc(json_array_size(given) + 1, sizeof *list->rules);
    if (list->rules == NULL) {
        snprintf(error, EGRESS_ERROR_MAX_BYTES, "out of memory");
        return false;
    }
    json_array_foreach(given, i, entry)
    {
        if (!read_rule(json_string_value(entry), takes_names, &list->rules[list->count++])) {
            snprintf(error, EGRESS_ERROR_MAX_BYTES, "network.%s[%zu] is no address or range%s", key, i,
                     takes_names ? " and no name" : "");
            return false;
        }
    }
    return true;
}

struct egress *egress_new(const json_t *network, char error[static EGRESS_ERROR_MAX_BYTES])
{
    struct egress *egress = calloc(1, sizeof *egress);

    if (egress == NULL) {
        snprintf(error, EGRESS_ERROR_MAX_BYTES, "out of memory");
        return NULL;
    }
    if (network != NULL && !json_is_null(network) && !json_is_object(network)) {
        snprintf(error, EGRESS_ERROR_MAX_BYTES, "network must be an object");
    } else if (read_list(network, "allowOut", true, &egress->allow, error) &&
               read_list(network, "denyOut", false, &egress->deny, error)) {
        return egress;
    }
    egress_free(egress);
    return NULL;
}

void egress_free(struct egress *egress)
{
    if (egress == NULL)
        return;
    free(egress->allow.rules);
    free(egress->deny.rules);
    free(egress);
}

/* --- judging -------------------------------------------------------------------------------------- */

static bool name_matches(const char *pattern, const char *host)
{
    size_t host_bytes = strlen(host), end_bytes = strlen(pattern) - 1;

    if (*pattern != '*')
        return strcasecmp(pattern, host) == 0;
    /* "*" is any name, "*.example.com" what ends in ".example.com". */
    return host_bytes > end_bytes && strcasecmp(host + host_bytes - end_bytes, pattern + 1) == 0;
}

static bool range_matches(const struct rule *rule, const union address *address)
{
    if (rule->bits == 0)
        return true;
    return rule->network.any.sa_family == address->any.sa_family &&
           address_has_prefix(address, &rule->network, rule->bits);
}

/* Whether a list has the address, or the name it was found for. */
static bool list_has(const struct rule_list *list, const char *host, const union address *address)
{
    for (size_t i = 0; i < list->count; i++) {
        const struct rule *rule = &list->rules[i];

        if (rule->network.any.sa_family == AF_UNSPEC ? name_matches(rule->name, host) : range_matches(rule, address))
            return true;
    }
    return false;
}

bool egress_may_allow(const struct egress *egress, const char *host)
{
    bool denies_all = false;

    for (size_t i = 0; i < egress->deny.count; i++)
        denies_all = denies_all || egress->deny.rules[i].bits == 0;
    if (!denies_all)
        return true;
    for (size_t i = 0; i < egress->allow.count; i++) {
        const struct rule *rule = &egress->allow.rules[i];

        if (rule->network.any.sa_family != AF_UNSPEC || name_matches(rule->name, host))
            return true;
    }
    return false;
}

bool egress_allows(const struct egress *egress, const char *host, const union address *address)
{
    union address direct = *address, v4;

    address_unmap(&direct);
    if (list_has(&egress->allow, host, &direct))
        return true;
    if (list_has(&egress->deny, host, &direct))
        return false;
    /* Nor by a detour. */
    return !address_embedded(address, &v4) || !list_has(&egress->deny, host, &v4);
}
