/*
 * number_text: a double as text.
 */
#ifndef WORKER_NUMBER_TEXT_H
#define WORKER_NUMBER_TEXT_H

#define NUMBER_TEXT_BYTES 32

/* The shortest spelling that means the same number: 0.1, 5, 1e+20. Returns out. */
const char *number_text(double number, char out[static NUMBER_TEXT_BYTES]);

/* For jansson: its 17 digits show people what binary fractions are. */
#define NUMBER_TEXT_DIGITS 15

#endif
