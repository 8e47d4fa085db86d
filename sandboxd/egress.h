/*
 * egress: what the one who makes a sandbox lets it reach: allowOut and denyOut of a create's network (e2b.md 0.4).
 *
 * It only ever takes away from what the operator's settings give. A rule is an address, a range ("10.0.0.0/8") or, in
 * allowOut, a name ("api.example.com", "*.example.com"). What allowOut has is reached even if denyOut has it too, and
 * what neither has is reached. "0.0.0.0/0" and "::/0" stand for all addresses of both kinds.
 */
#ifndef SANDBOXD_EGRESS_H
#define SANDBOXD_EGRESS_H

#include "sandboxd/address.h"

#include <jansson.h>

#define EGRESS_RULES_MAX       256
#define EGRESS_ERROR_MAX_BYTES 256

struct egress;

/* Reads the network object of a create, NULL and null: no rules. NULL with what is wrong with it in error. */
struct egress *egress_new(const json_t *network, char error[static EGRESS_ERROR_MAX_BYTES])
    __attribute__((warn_unused_result));
void egress_free(struct egress *egress);

/* Whether any address could be reached under the host; if not, it need not be looked up. */
bool egress_may_allow(const struct egress *egress, const char *host);

/* Whether an address that was found for the host, a name in lower case or an address, may be reached. */
bool egress_allows(const struct egress *egress, const char *host, const union address *address);

#endif
