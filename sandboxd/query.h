/* query: query strings as E2B encodes them (spec/e2b.md 0.5), without a socket. */
#ifndef SANDBOXD_QUERY_H
#define SANDBOXD_QUERY_H

#include <jansson.h>
#include <stdbool.h>

/*
 * Decodes the metadata parameter, already query-decoded once: form-decode the whole, split at & and =, form-decode each
 * side. An object of strings, the caller's; NULL when a pair is malformed.
 */
json_t *query_metadata(const char *text) __attribute__((warn_unused_result));

/* Whether every wanted pair is in the metadata (which may be NULL). */
bool query_metadata_matches(const json_t *metadata, const json_t *wanted);

/* Reads an RFC 3339 time, cut to microseconds since 1970; false when it is none. */
bool query_time(const char *text, long long *microseconds) __attribute__((warn_unused_result));

#endif
