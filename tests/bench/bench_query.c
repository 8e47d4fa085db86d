/*
 * What a request costs before its run begins: body of 100 KiB -> checked request -> agent_config.json, in CPU time of
 * this thread. The yardstick, measured in turns with it, is one jansson load and dump of the same body.
 *
 * Fails when a request costs 1 ms or more (the least of many rounds: noise only adds).
 */
#include "worker/agent_options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BODY_BYTES (100 << 10)
#define ROUNDS     200
#define LIMIT_MS   1.0

static double cpu_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1000 + (double)now.tv_nsec / 1e6;
}

/* --- bodies ---------------------------------------------------------------------------------------------- */

static char *filled(const char *pattern, size_t size)
{
    size_t length = strlen(pattern);
    char *text = malloc(size + 1);

    if (text == NULL)
        abort();
    for (size_t i = 0; i < size; i++)
        text[i] = pattern[i % length];
    text[size] = '\0';
    return text;
}

static json_t *prompt_body(const char *pattern, size_t size)
{
    char *text = filled(pattern, size);
    json_t *body = json_pack("{s:s}", "prompt", text);

    free(text);
    return body;
}

static json_t *files_body(void)
{
    char *text = filled("int main(void)\n{\n    return 0;\n}\n", BODY_BYTES / 20);
    json_t *body = json_pack("{s:s, s:{}}", "prompt", "p", "files");
    char path[32];

    for (int i = 0; i < 20; i++) {
        snprintf(path, sizeof path, "src/part-%02d.c", i);
        json_object_set_new(json_object_get(body, "files"), path, json_string(text));
    }
    free(text);
    return body;
}

static json_t *agents_body(void)
{
    char *text = filled("You review code. ", 1000);
    json_t *body = json_pack("{s:s, s:{}}", "prompt", "p", "extra_agents");
    char name[32];

    for (int i = 0; i < BODY_BYTES / 1100; i++) {
        snprintf(name, sizeof name, "reviewer-%d", i);
        json_object_set_new(
            json_object_get(body, "extra_agents"), name,
            json_pack("{s:s, s:s, s:[s,s]}", "description", "reviews", "prompt", text, "tools", "Read", "Grep"));
    }
    free(text);
    return body;
}

/* --- measured -------------------------------------------------------------------------------------------- */

static void serve(const char *text, size_t length, const struct project *project)
{
    struct query_request request;
    struct evbuffer *out = evbuffer_new();
    json_t *errors;
    char *error;

    if (query_request_parse(text, length, &request, &errors) != QUERY_OK ||
        !agent_options_write(&(struct agent_options){.request = &request, .project = project, .timeout_s = 300}, out,
                             &error))
        abort();
    evbuffer_free(out);
    query_request_release(&request);
}

static void load_and_dump(const char *text, size_t length)
{
    json_t *root = json_loadb(text, length, 0, NULL);

    free(json_dumps(root, JSON_COMPACT));
    json_decref(root);
}

static bool measure(const char *name, json_t *body)
{
    char *text = json_dumps(body, 0);
    size_t length = strlen(text);
    struct project *project = project_empty();
    double own = 1e9, yardstick = 1e9;

    for (int i = 0; i < ROUNDS; i++) {
        double start = cpu_ms(), middle, end;

        serve(text, length, project);
        middle = cpu_ms();
        load_and_dump(text, length);
        end = cpu_ms();
        own = middle - start < own ? middle - start : own;
        yardstick = end - middle < yardstick ? end - middle : yardstick;
    }
    printf("query: %-18s %4zu KiB  %.3f ms CPU  %.2f x jansson's load and dump\n", name, length >> 10, own,
           own / yardstick);
    project_unref(project);
    free(text);
    json_decref(body);
    return own < LIMIT_MS;
}

int main(void)
{
    bool good = measure("plain prompt", prompt_body("Summarise the report. ", BODY_BYTES));

    good &= measure("escapes and UTF-8", prompt_body("\"name\": \"Gr\xc3\xb6\xc3\x9f\x65\",\n", BODY_BYTES * 5 / 6));
    good &= measure("20 files", files_body());
    good &= measure("extra_agents", agents_body());
    if (!good)
        fprintf(stderr, "a request of 100 KiB costs %g ms or more\n", LIMIT_MS);
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
