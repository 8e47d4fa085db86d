#include "common/e2b_webhook.h"

#include <stdio.h>
#include <string.h>

#define RECEIVER_BYTES (sizeof E2B_WEBHOOK_RECEIVER - 1)

char *e2b_webhook_receiver(const char *url)
{
    size_t length = strlen(url);
    char *whole;

    while (length > 0 && url[length - 1] == '/')
        length--;
    if (length == 0)
        return NULL;
    if (length >= RECEIVER_BYTES && memcmp(url + length - RECEIVER_BYTES, E2B_WEBHOOK_RECEIVER, RECEIVER_BYTES) == 0)
        return strndup(url, length);
    return asprintf(&whole, "%.*s" E2B_WEBHOOK_RECEIVER, (int)length, url) < 0 ? NULL : whole;
}
