/*
 * json_text: JSON as text: checked against RFC 8259, then walked, without a tree of it being built.
 *
 * For what jansson cannot keep: numbers of any length and in the caller's spelling, NUL in keys, the place of a fault.
 * Strings are decoded one by one, as jansson values.
 */
#ifndef WORKER_JSON_TEXT_H
#define WORKER_JSON_TEXT_H

#include <event2/buffer.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#define JSON_TEXT_DEPTH_MAX        400
#define JSON_TEXT_OUTPUT_DEPTH_MAX 16384

/* One value of a text that was checked, without blanks around it; borrowed. start NULL: no value. */
struct json_text {
    const char *start;
    size_t length;
};

enum json_text_result {
    JSON_TEXT_OK,
    JSON_TEXT_INVALID,
    JSON_TEXT_TOO_DEEP, /* more than JSON_TEXT_DEPTH_MAX levels, of output JSON_TEXT_OUTPUT_DEPTH_MAX */
};

struct json_text_fault {
    size_t offset; /* bytes before the fault */
    const char *reason;
};

enum json_text_type {
    JSON_TEXT_NULL,
    JSON_TEXT_BOOLEAN,
    JSON_TEXT_NUMBER,
    JSON_TEXT_STRING,
    JSON_TEXT_ARRAY,
    JSON_TEXT_OBJECT,
};

/* Text is valid UTF-8. On JSON_TEXT_OK *root is its one value, on JSON_TEXT_INVALID *fault says why not. */
enum json_text_result json_text_check(const char *text, size_t length, struct json_text *root,
                                      struct json_text_fault *fault) __attribute__((warn_unused_result));

/* As json_text_check() for a program's output: what JSON.stringify() writes of half an emoji passes. */
enum json_text_result json_text_check_output(const char *text, size_t length, struct json_text *root)
    __attribute__((warn_unused_result));

enum json_text_type json_text_type(struct json_text value);
bool json_text_is_true(struct json_text value);

/* A string's text, which may hold NUL; a lone surrogate becomes U+FFFD. NULL for lack of memory. */
json_t *json_text_string(struct json_text value);

/* The place in an array or object. */
struct json_text_cursor {
    const char *at;
    const char *end;
};

struct json_text_cursor json_text_enter(struct json_text container);
/* False at the end. A key is a string value. */
bool json_text_next_member(struct json_text_cursor *cursor, struct json_text *key, struct json_text *value);
bool json_text_next_element(struct json_text_cursor *cursor, struct json_text *value);

/*
 * An object's members, each value given by read(): of a repeated key the last wins. An element that read() gives NULL
 * for is left out. NULL for lack of memory.
 */
json_t *json_text_members(struct json_text object, json_t *(*read)(json_t *key, struct json_text value, void *context),
                          void *context);

/* A string with its quotes: UTF-8, escapes only where JSON wants them. */
bool json_text_write_string(struct evbuffer *out, const char *text, size_t length) __attribute__((warn_unused_result));
/* A string, or an array of strings; NULL is null. */
bool json_text_write_value(struct evbuffer *out, const json_t *string) __attribute__((warn_unused_result));
bool json_text_write_strings(struct evbuffer *out, const json_t *list) __attribute__((warn_unused_result));

/*
 * Writes the value anew: without blanks between its tokens, strings by json_text_write_string(), numbers as they were
 * spelled, keys in their order. map(), when not NULL, takes over each string that is a value and gives what stands in
 * its place; NULL ends it with false.
 */
bool json_text_rewrite(struct json_text value, struct evbuffer *out, json_t *(*map)(json_t *string, void *context),
                       void *context) __attribute__((warn_unused_result));

/* The value's own text as a string, for a later json_text_check(); a read() for json_text_members(). */
json_t *json_text_verbatim(json_t *key, struct json_text value, void *context);
/* What json_text_verbatim() made; its text is borrowed. */
struct json_text json_text_of(const json_t *verbatim);

#endif
