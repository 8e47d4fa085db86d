/*
 * state_files: what stands in the state directory (http-api.md section 9 and 16.7). Everything is 0600.
 */
#ifndef COMMON_STATE_FILES_H
#define COMMON_STATE_FILES_H

#define STATE_FILE_LOCK         "lock"         /* held by the master: fcntl() */
#define STATE_FILE_INSTANCE     "instance"     /* the name of this instance */
#define STATE_FILE_INSTANCE_NEW "instance.new" /* being written, renamed when it is whole */
#define STATE_FILE_RUNS         "runs.jsonl"   /* the history of runs; appended to under flock() */
#define STATE_FILE_RUNS_NEW     "runs.jsonl.new"
#define STATE_FILE_WEBHOOK      "webhook.json" /* the registration at the sandbox service, with its secret */
#define STATE_FILE_WEBHOOK_NEW  "webhook.json.new"

#endif
