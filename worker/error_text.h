/*
 * error_text: the text of an error made fit for a client and a log (http-api.md 5.6): one line of whole characters, at
 * most 4 KiB, without keys, tokens and URL credentials. Everything happens in place: a text never grows.
 */
#ifndef WORKER_ERROR_TEXT_H
#define WORKER_ERROR_TEXT_H

#define ERROR_TEXT_MAX_BYTES 4096 /* with the final NUL */

/* Control bytes become blanks, "user:password@" leaves URLs, a character that was cut at the end goes. */
void error_text_clean(char *text);

/* Writes *** over a secret wherever it stands, also where the end of the text cuts it. NULL and short ones are none. */
void error_text_hide(char *text, const char *secret);

#endif
