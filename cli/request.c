#include "cli/request.h"

#include "cli/interrupt.h"
#include "cli/options.h"
#include "common/small_file.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READ_BYTES 65536

/* --- the prompt --------------------------------------------------------------------------------------------- */

/* As read(2), but a signal that came before it counts as well (EINTR). */
static ssize_t read_or_interrupt(char *bytes, size_t size)
{
    struct pollfd waiting[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = interrupt_fd(), .events = POLLIN}};

    if (poll(waiting, 2, -1) < 0)
        return -1;
    if (interrupt_signal() != 0) {
        errno = EINTR;
        return -1;
    }
    return read(STDIN_FILENO, bytes, size);
}

/* All of standard input; NULL with errno, EFBIG when it is longer than a prompt may be. To be freed. */
static char *read_input(size_t *length)
{
    char *text = NULL;

    *length = 0;
    for (;;) {
        char *longer = realloc(text, *length + READ_BYTES + 1);
        ssize_t n;

        if (longer == NULL)
            break;
        text = longer;
        n = read_or_interrupt(text + *length, READ_BYTES);
        if (n == 0) {
            text[*length] = '\0';
            return text;
        }
        if (n < 0)
            break;
        *length += (size_t)n;
        if (*length > REQUEST_PROMPT_MAX) {
            errno = EFBIG;
            break;
        }
    }
    free(text);
    return NULL;
}

char *request_read_input(const char *command, size_t *length)
{
    char *input = read_input(length);

    if (input == NULL && errno != EINTR)
        fprintf(stderr, "%s: standard input: %s\n", command, strerror(errno));
    return input;
}

static bool set_prompt(struct request *request, const char *command, const char *text, size_t length)
{
    if (length == 0) {
        (void)options_reject(command, "the prompt is empty");
        return false;
    }
    request->prompt = json_stringn(text, length);
    if (request->prompt == NULL)
        (void)options_reject(command, "the prompt is not UTF-8 text");
    return request->prompt != NULL;
}

bool request_set_prompt(struct request *request, const char *command, const char *text)
{
    size_t length;
    char *input;
    bool set;

    if (strcmp(text, "-") != 0)
        return set_prompt(request, command, text, strlen(text));
    input = request_read_input(command, &length);
    if (input == NULL)
        return false;
    while (length > 0 && input[length - 1] == '\n')
        length--;
    set = set_prompt(request, command, input, length);
    free(input);
    return set;
}

/* --- files -------------------------------------------------------------------------------------------------- */

/* Whether one of the parts of a path is "..". */
static bool leads_up(const char *path)
{
    while (*path != '\0') {
        const char *end = strchrnul(path, '/');

        if (end - path == 2 && strncmp(path, "..", 2) == 0)
            return true;
        path = *end == '\0' ? end : end + 1;
    }
    return false;
}

static const char *name_in_sandbox(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (slash != NULL && (*path == '/' || leads_up(path)))
        return slash + 1;
    while (strncmp(path, "./", 2) == 0)
        path += 2;
    return path;
}

static bool refuse(const char *command, const char *path, const char *reason)
{
    (void)options_reject(command, "%s: %s", path, reason);
    return false;
}

bool request_add_file(struct request *request, const char *command, const char *path)
{
    const char *reason, *name = name_in_sandbox(path);
    size_t length;
    char *text;
    json_t *content;

    if (request->files == NULL && (request->files = json_object()) == NULL)
        return refuse(command, path, strerror(ENOMEM));
    if (json_object_size(request->files) == REQUEST_FILES_MAX)
        return refuse(command, path, "a request has at most 20 files");
    if (json_object_get(request->files, name) != NULL)
        return refuse(command, path, "another file has this name in the sandbox");
    text = small_file_read(path, REQUEST_FILES_MAX_BYTES, &length, &reason);
    if (text == NULL)
        return refuse(command, path, reason);
    content = json_stringn(text, length);
    small_file_free(text, length);
    if (content == NULL)
        return refuse(command, path, "is not UTF-8 text");
    return json_object_set_new(request->files, name, content) == 0 ||
           refuse(command, path, "its name is not UTF-8 text");
}

/* --- the body ----------------------------------------------------------------------------------------------- */

json_t *request_body(const struct request *request)
{
    json_t *body = json_object();

    if (body == NULL || json_object_set(body, "prompt", request->prompt) < 0 ||
        (request->model != NULL && json_object_set_new(body, "model", json_string(request->model)) < 0) ||
        (request->max_turns > 0 && json_object_set_new(body, "max_turns", json_integer(request->max_turns)) < 0) ||
        (request->timeout_s > 0 && json_object_set_new(body, "timeout", json_integer(request->timeout_s)) < 0) ||
        (request->files != NULL && json_object_set(body, "files", request->files) < 0)) {
        json_decref(body);
        return NULL;
    }
    return body;
}

void request_release(struct request *request)
{
    json_decref(request->prompt);
    json_decref(request->files);
}
