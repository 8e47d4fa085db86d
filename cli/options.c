#include "cli/options.h"

#include "cli/ds.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

bool options_take_server(struct server_options *options, int code, char *value)
{
    switch (code) {
    case OPTION_SERVER:
        options->server = value;
        return true;
    case OPTION_CA_FILE:
        options->ca_file = value;
        return true;
    case OPTION_CERT:
        options->cert = value;
        return true;
    case OPTION_KEY:
        options->key = value;
        return true;
    case OPTION_API_KEY:
        options->api_key = value;
        return true;
    default:
        return false;
    }
}

bool options_number(const char *command, const char *option, const char *text, long min, long max, long *value)
{
    char *end;

    errno = 0;
    *value = strtol(text, &end, 10);
    if (*text != '\0' && *end == '\0' && errno == 0 && *value >= min && *value <= max)
        return true;
    (void)options_reject(command, "%s wants a whole number from %ld to %ld: %s", option, min, max, text);
    return false;
}

int options_unknown(const char *command)
{
    fprintf(stderr, "Try '%s --help'.\n", command);
    return DS_USAGE;
}

int options_reject(const char *command, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fprintf(stderr, "%s: ", command);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return options_unknown(command);
}
