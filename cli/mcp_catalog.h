/* mcp_catalog: MCP servers that `ds add` knows by name, as sandstorm.json has them. */
#ifndef CLI_MCP_CATALOG_H
#define CLI_MCP_CATALOG_H

#include <jansson.h>
#include <stdio.h>

/* NULL when it is none of them; else the caller's. */
json_t *mcp_catalog_get(const char *name) __attribute__((warn_unused_result));

/* A line for each: its name, and what it is good for. */
void mcp_catalog_list(FILE *out);

#endif
