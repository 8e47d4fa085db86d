#include "worker/early_answer.h"

#include <event2/util.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_AFTER_MAX_S 30
#define DATE_BUFFER       32

const char *http_reason(int status)
{
    static const struct {
        int status;
        const char *reason;
    } reasons[] = {{200, "OK"},
                   {202, "Accepted"},
                   {307, "Temporary Redirect"},
                   {400, "Bad Request"},
                   {401, "Unauthorized"},
                   {404, "Not Found"},
                   {405, "Method Not Allowed"},
                   {408, "Request Timeout"},
                   {409, "Conflict"},
                   {413, "Payload Too Large"},
                   {414, "URI Too Long"},
                   {417, "Expectation Failed"},
                   {422, "Unprocessable Entity"},
                   {431, "Request Header Fields Too Large"},
                   {500, "Internal Server Error"},
                   {503, "Service Unavailable"}};

    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
        if (reasons[i].status == status)
            return reasons[i].reason;
    }
    return "Unknown";
}

void retry_after(char seconds[static RETRY_AFTER_BUFFER])
{
    snprintf(seconds, RETRY_AFTER_BUFFER, "%d", 1 + (int)(drand48() * RETRY_AFTER_MAX_S));
}

void early_answer_write(struct evbuffer *output, const struct early_answer *answer)
{
    const char *type = answer->content_type != NULL ? answer->content_type : "application/json";
    char date[DATE_BUFFER];

    evutil_date_rfc1123(date, sizeof date, NULL);
    evbuffer_add_printf(output, "HTTP/1.1 %d %s\r\nDate: %s\r\nServer: sandstorm\r\nConnection: close\r\n",
                        answer->status, http_reason(answer->status), date);
    if (*answer->body != '\0')
        evbuffer_add_printf(output, "Content-Type: %s\r\n", type);
    evbuffer_add_printf(output, "Content-Length: %zu\r\n", strlen(answer->body));
    if (answer->fields != NULL)
        evbuffer_add_buffer(output, answer->fields);
    evbuffer_add_printf(output, "\r\n%s", answer->head_only ? "" : answer->body);
}
