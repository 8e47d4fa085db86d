#include "sandboxd/pace.h"

#define MS_PER_S 1000
/* At rest for so long it has used nothing, whatever it used. */
#define REST_MS (60 * MS_PER_S)

int64_t pace_use(struct pace *pace, size_t bytes, int64_t now_ms)
{
    int64_t passed_ms = now_ms - pace->seen_ms;
    int64_t forgotten_bytes = (passed_ms < REST_MS ? passed_ms : REST_MS) * PACE_BYTES_PER_S / MS_PER_S;
    int64_t ahead_bytes;

    pace->used_bytes = pace->used_bytes > forgotten_bytes ? pace->used_bytes - forgotten_bytes : 0;
    pace->used_bytes += (int64_t)bytes;
    pace->seen_ms = now_ms;
    ahead_bytes = pace->used_bytes - PACE_BURST_BYTES;
    return ahead_bytes <= 0 ? 0 : 1 + ahead_bytes * MS_PER_S / PACE_BYTES_PER_S;
}
