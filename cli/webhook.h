/* webhook: the command below `ds webhook` that asks a Sandstorm server, as a command does; returns an exit code. */
#ifndef CLI_WEBHOOK_H
#define CLI_WEBHOOK_H

int webhook_test(int argc, char *argv[], const char *usage);

#endif
