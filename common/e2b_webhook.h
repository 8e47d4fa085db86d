/*
 * e2b_webhook: what registrations for the sandbox service's events say (http-api.md section 13, e2b.md 0.11).
 */
#ifndef COMMON_E2B_WEBHOOK_H
#define COMMON_E2B_WEBHOOK_H

/* Of the control API: POST, GET; with /{id}: DELETE. */
#define E2B_WEBHOOK_PATH "/events/webhooks"

#define E2B_WEBHOOK_SIGNATURE "e2b-signature" /* header of a delivery */
#define E2B_WEBHOOK_RECEIVER  "/webhooks/e2b" /* where the server takes events */

#define E2B_EVENT_CREATED "sandbox.lifecycle.created"
#define E2B_EVENT_UPDATED "sandbox.lifecycle.updated"
#define E2B_EVENT_KILLED  "sandbox.lifecycle.killed"

/* The receiver below a server's URL, which may name it already. To be freed; NULL for an empty one, and for lack of
 * memory. */
char *e2b_webhook_receiver(const char *url) __attribute__((warn_unused_result));

#endif
