/* `.env`: any bytes give values that can be asked for, and bad lines that have a number. */
#include "common/dotenv.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static void on_bad_line(size_t line, void *context)
{
    size_t *last = context;

    FUZZ_CHECK(line > 0);
    *last = line;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t last = 0;
    struct dotenv *dotenv = dotenv_parse((const char *)data, size, on_bad_line, &last);

    FUZZ_CHECK(dotenv != NULL);
    FUZZ_CHECK(last <= size + 1);
    FUZZ_CHECK(dotenv_get(dotenv, "SURELY_NOT_NAMED_HERE") == NULL || memmem(data, size, "SURELY", 6) != NULL);
    dotenv_unref(dotenv);
    return 0;
}
