#include "worker/number_text.h"

#include <stdio.h>
#include <stdlib.h>

const char *number_text(double number, char out[static NUMBER_TEXT_BYTES])
{
    /* 15 digits survive the way there and back, 17 tell all doubles apart. */
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(out, NUMBER_TEXT_BYTES, "%.*g", digits, number);
        if (strtod(out, NULL) == number)
            break;
    }
    return out;
}
