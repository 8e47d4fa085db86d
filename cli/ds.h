/*
 * ds: what its commands share: how they end, and the one thing each of them is.
 */
#ifndef CLI_DS_H
#define CLI_DS_H

/* A signal that ends ds gives 128 + its number: 130 for INT (interrupt.h). */
enum ds_exit {
    DS_OK = 0,
    DS_FAILED = 1, /* the agent, the server or the machine is at fault */
    DS_USAGE = 2,  /* the command line is */
};

/* Each takes its own words: argv[0] is "ds NAME", for messages. Returns an exit code. */
int command_add(int argc, char *argv[]);
int command_cancel(int argc, char *argv[]);
int command_check(int argc, char *argv[]);
int command_doctor(int argc, char *argv[]);
int command_init(int argc, char *argv[]);
int command_query(int argc, char *argv[]);
int command_replay(int argc, char *argv[]);
int command_runs(int argc, char *argv[]);
int command_serve(int argc, char *argv[]);
int command_show(int argc, char *argv[]);
int command_status(int argc, char *argv[]);
int command_template(int argc, char *argv[]);
int command_trigger(int argc, char *argv[]);
int command_webhook(int argc, char *argv[]);

#endif
