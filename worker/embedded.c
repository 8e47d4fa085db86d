#include "worker/embedded.h"

_Static_assert(sizeof(size_t) == 8, "the lengths below are quads");

/* Paths are relative to the root of the repository, where make compiles; the Makefile knows what this file includes. */
#define EMBED(symbol, path)                                                                                            \
    __asm__(".pushsection .rodata\n"                                                                                   \
            ".global " #symbol "\n" #symbol ":\n"                                                                      \
            ".incbin \"" path "\"\n"                                                                                   \
            "1:\n"                                                                                                     \
            ".balign 8\n"                                                                                              \
            ".global " #symbol "_length\n" #symbol "_length:\n"                                                        \
            ".quad 1b - " #symbol "\n"                                                                                 \
            ".popsection\n")

EMBED(embedded_openapi_json, "worker/pages/openapi.json");
EMBED(embedded_docs_html, "worker/pages/docs.html");
EMBED(embedded_dashboard_html, "worker/pages/dashboard.html");
