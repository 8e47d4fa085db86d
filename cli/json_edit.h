/*
 * json_edit: one member put into a JSON text, which keeps its order, its layout and every other byte.
 */
#ifndef CLI_JSON_EDIT_H
#define CLI_JSON_EDIT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#define JSON_EDIT_REASON_BYTES 256

enum json_edit_result {
    JSON_EDIT_DONE,
    JSON_EDIT_EXISTS, /* and may not be replaced */
    JSON_EDIT_FAILED, /* see reason */
};

/*
 * Puts section.name = value into the text of an object, in the layout that it has: a section that is missing comes
 * last, so does the member in it. *out is to be freed, with a NUL behind it.
 */
enum json_edit_result json_edit_put(const char *text, size_t length, const char *section, const char *name,
                                    const json_t *value, bool may_replace, char **out,
                                    char reason[static JSON_EDIT_REASON_BYTES]) __attribute__((warn_unused_result));

#endif
