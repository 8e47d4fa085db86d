#include "worker/error_text.h"

#include "worker/utf8.h"

#include <string.h>

#define SECRET_MIN_BYTES 8 /* shorter ones would be found in ordinary words */
#define MASK             "***"

static void one_line(char *text)
{
    for (char *c = text; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = ' ';
    }
}

/* https://user:password@host becomes https://host. */
static void drop_url_credentials(char *text)
{
    for (char *at = text; (at = strstr(at, "://")) != NULL;) {
        char *authority = at += 3;
        size_t length = strcspn(authority, "/?# \"'<>");
        char *last = memrchr(authority, '@', length);

        if (last != NULL)
            memmove(authority, last + 1, strlen(last + 1) + 1);
    }
}

/* Whoever cut the text may have cut its last character. */
static void drop_torn_character(char *text, size_t length)
{
    for (size_t back = 1; back <= 3 && back <= length; back++) {
        unsigned char c = (unsigned char)text[length - back];

        if (utf8_announced(c) > back)
            text[length - back] = '\0';
        if ((c & 0xc0) != 0x80)
            return;
    }
}

void error_text_clean(char *text)
{
    size_t length = strlen(text);

    if (length >= ERROR_TEXT_MAX_BYTES)
        text[length = ERROR_TEXT_MAX_BYTES - 1] = '\0';
    drop_torn_character(text, length);
    one_line(text);
    drop_url_credentials(text);
}

/* The text may have been cut inside a secret. */
static void hide_at_the_end(char *text, const char *secret, size_t secret_length)
{
    size_t length = strlen(text);

    for (size_t part = secret_length - 1; part >= SECRET_MIN_BYTES; part--) {
        if (part <= length && memcmp(text + length - part, secret, part) == 0) {
            memcpy(text + length - part, MASK, sizeof MASK);
            return;
        }
    }
}

void error_text_hide(char *text, const char *secret)
{
    size_t secret_length = secret != NULL ? strlen(secret) : 0;

    if (secret_length < SECRET_MIN_BYTES)
        return;
    for (char *found = text; (found = strstr(found, secret)) != NULL;) {
        const char *rest = found + secret_length;

        memcpy(found, MASK, sizeof MASK - 1);
        found += sizeof MASK - 1;
        memmove(found, rest, strlen(rest) + 1);
    }
    hide_at_the_end(text, secret, secret_length);
}
