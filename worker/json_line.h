/*
 * json_line: some members of a line that is a JSON object, found in one scan and without a tree of it.
 */
#ifndef WORKER_JSON_LINE_H
#define WORKER_JSON_LINE_H

#include "worker/json_text.h"

/* Is the value a string, and this text? Escapes may spell it. */
bool json_line_is(struct json_text value, const char *text);

/*
 * values[i] is what stands under names[i] at the top level, start NULL when the key is missing; of a repeated key the
 * last counts. False: the line is no JSON object in UTF-8.
 */
bool json_line_members(const char *line, size_t length, const char *const names[], size_t count,
                       struct json_text values[]) __attribute__((warn_unused_result));

#endif
