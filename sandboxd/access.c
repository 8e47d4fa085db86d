#include "sandboxd/access.h"

#include "sandboxd/base64.h"

#include <string.h>
#include <strings.h>

bool access_token_equal(const char *given, const char *expected)
{
    size_t length = strlen(expected);
    unsigned difference = 0;

    if (strlen(given) != length)
        return false;
    for (size_t i = 0; i < length; i++)
        difference |= (unsigned)(given[i] ^ expected[i]);
    return difference == 0;
}

bool access_user_exists(const char *name)
{
    return strcmp(name, "user") == 0 || strcmp(name, "root") == 0;
}

bool access_basic_user(const char *authorization, char name[static ACCESS_USER_MAX_BYTES])
{
    static const char scheme[] = "Basic ";
    size_t length, used;

    if (strncasecmp(authorization, scheme, sizeof scheme - 1) != 0)
        return false;
    authorization += sizeof scheme - 1;
    length = strlen(authorization);
    if (length / 4 * 3 + 2 >= ACCESS_USER_MAX_BYTES || !base64_decode_lenient(authorization, length, name, &used))
        return false;
    name[used] = '\0';
    name[strcspn(name, ":")] = '\0';
    return true;
}
