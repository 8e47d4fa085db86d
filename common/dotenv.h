/*
 * dotenv: the text of a `.env` file as names and values (grammar: http-api.md 15.2, python-dotenv where that is
 * silent). Values are secrets: they are wiped before their memory is given back.
 *
 * `KEY=value` a line; `export ` before it and blanks around `=` are allowed. An unquoted value ends at the end of the
 * line or at a blank and `#`. 'single quotes' know \\ and \', "double quotes" the escapes of C with one letter; both
 * may span lines. ${NAME} and ${NAME:-default} in any value become the variable of the process, else that of an earlier
 * line, else the default: set but empty is set. A KEY alone is ignored.
 */
#ifndef COMMON_DOTENV_H
#define COMMON_DOTENV_H

#include <stddef.h>

#define DOTENV_TEXT_MAX_BYTES  (1u << 20)
#define DOTENV_VALUE_MAX_BYTES (1u << 16) /* a longer value makes its line a bad one */
#define DOTENV_TOTAL_MAX_BYTES (1u << 22) /* of all values, expanded: lines beyond are bad ones */

struct dotenv;

/*
 * Any bytes will do. A bad line (counted from 1: where it begins) is told to bad_line and skipped. NULL with errno:
 * ENOMEM, or EFBIG for more than DOTENV_TEXT_MAX_BYTES.
 */
struct dotenv *dotenv_parse(const char *text, size_t length, void (*bad_line)(size_t line, void *context),
                            void *context) __attribute__((warn_unused_result));
struct dotenv *dotenv_ref(struct dotenv *values); /* NULL is allowed, and gives NULL */
void dotenv_unref(struct dotenv *values);         /* NULL is allowed */

/* What the last line with the name says; NULL when there is none. Valid while the values live. */
const char *dotenv_get(const struct dotenv *values, const char *name);

#endif
