#include "cli/mcp_catalog.h"

#include <string.h>

/*
 * Servers that take a key of the environment, as an agent without a browser needs; where a vendor's hosted server asks
 * for a browser's sign-in only, his published npm package is run in the sandbox instead.
 */
static const struct {
    const char *name;
    const char *summary;
    const char *json;
} servers[] = {
    {"linear", "issues and projects of Linear; LINEAR_API_KEY",
     "{\"type\": \"http\", \"url\": \"https://mcp.linear.app/mcp\","
     " \"headers\": {\"Authorization\": \"Bearer ${LINEAR_API_KEY}\"}}"},
    {"notion", "pages and databases of Notion; NOTION_TOKEN",
     "{\"command\": \"npx\", \"args\": [\"-y\", \"@notionhq/notion-mcp-server\"],"
     " \"env\": {\"NOTION_TOKEN\": \"${NOTION_TOKEN}\"}}"},
    {"firecrawl", "web pages as text; FIRECRAWL_API_KEY",
     "{\"command\": \"npx\", \"args\": [\"-y\", \"firecrawl-mcp\"],"
     " \"env\": {\"FIRECRAWL_API_KEY\": \"${FIRECRAWL_API_KEY}\"}}"},
    {"exa", "search of the web; EXA_API_KEY",
     "{\"command\": \"npx\", \"args\": [\"-y\", \"exa-mcp-server\"], \"env\": {\"EXA_API_KEY\": \"${EXA_API_KEY}\"}}"},
    {"github", "repositories, issues and pull requests; GITHUB_TOKEN",
     "{\"type\": \"http\", \"url\": \"https://api.githubcopilot.com/mcp/\","
     " \"headers\": {\"Authorization\": \"Bearer ${GITHUB_TOKEN}\"}}"},
};

json_t *mcp_catalog_get(const char *name)
{
    for (size_t i = 0; i < sizeof servers / sizeof *servers; i++) {
        if (strcmp(servers[i].name, name) == 0)
            return json_loads(servers[i].json, 0, NULL);
    }
    return NULL;
}

void mcp_catalog_list(FILE *out)
{
    for (size_t i = 0; i < sizeof servers / sizeof *servers; i++)
        fprintf(out, "  %-20s%s\n", servers[i].name, servers[i].summary);
}
