/* trigger: the commands below `ds trigger`; each takes its words as a command does, and returns an exit code. */
#ifndef CLI_TRIGGER_H
#define CLI_TRIGGER_H

int trigger_list(int argc, char *argv[], const char *usage);
int trigger_test(int argc, char *argv[], const char *usage);

#endif
