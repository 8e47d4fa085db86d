/*
 * stream: one POST /query from the request to the end of its events.
 */
#ifndef CLI_STREAM_H
#define CLI_STREAM_H

#include "cli/http.h"
#include "cli/render.h"

#include <jansson.h>

/*
 * Runs an agent and renders its events. A signal cancels the run (POST /runs/{id}/cancel) and gives the exit code of
 * that signal. run_id, if not NULL, becomes the run's id, "" when there is none. Returns an exit code.
 */
int stream_run(const struct endpoint *endpoint, const json_t *body, const struct render_options *options,
               char run_id[HTTP_RUN_ID_BYTES]) __attribute__((warn_unused_result));

#endif
