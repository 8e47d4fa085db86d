/*
 * embedded: the files of worker/pages, which are part of the program.
 */
#ifndef WORKER_EMBEDDED_H
#define WORKER_EMBEDDED_H

#include <stddef.h>

extern const char embedded_openapi_json[];
extern const size_t embedded_openapi_json_length;
extern const char embedded_docs_html[];
extern const size_t embedded_docs_html_length;
extern const char embedded_dashboard_html[];
extern const size_t embedded_dashboard_html_length;

#endif
