/* template_command: sandboxd template build, list and remove. */
#ifndef SANDBOXD_TEMPLATE_COMMAND_H
#define SANDBOXD_TEMPLATE_COMMAND_H

/* Runs the command line from "template" on; the exit code: 0, 1 with the reason printed, 2 for a wrong command line. */
int template_command(int argc, char **argv);

#endif
