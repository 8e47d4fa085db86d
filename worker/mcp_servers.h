/*
 * mcp_servers: the servers of sandstorm.json as one run gets them: expanded (http-api.md 6.7).
 *
 * In every string value, at any depth and never in keys, ${NAME} and ${NAME:-default} are replaced from the
 * environment.
 */
#ifndef WORKER_MCP_SERVERS_H
#define WORKER_MCP_SERVERS_H

#include "common/environment.h"

#include <event2/buffer.h>
#include <jansson.h>
#include <stdbool.h>

/*
 * Writes the servers as one JSON object. servers: name -> JSON text. False when a variable is missing: *error is the
 * text for the client then, to be freed; or, with *error NULL, for lack of memory.
 */
bool mcp_servers_write(json_t *servers, const struct environment *environment, struct evbuffer *out, char **error)
    __attribute__((warn_unused_result));

#endif
