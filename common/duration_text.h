/* duration_text: how long something took, for people. */
#ifndef COMMON_DURATION_TEXT_H
#define COMMON_DURATION_TEXT_H

#define DURATION_TEXT_BYTES 40

/* "3.2 s", "5 min 03 s", "2 h 05 min", "4 d 03 h". Returns out. */
const char *duration_text(double seconds, char out[static DURATION_TEXT_BYTES]);

#endif
