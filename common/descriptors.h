/*
 * descriptors: how the open files of one worker are shared out. Clients that have no run never take those of the runs.
 */
#ifndef COMMON_DESCRIPTORS_H
#define COMMON_DESCRIPTORS_H

/* A run holds its client's and its sandbox's connection; all runs of an instance may meet in one worker. */
#define DESCRIPTORS_PER_RUN 2
/* Listening sockets, logs, resolver, health probes, deletions of ended runs. */
#define DESCRIPTORS_OWN 128
/* Connections without a run: so many at least. */
#define DESCRIPTORS_SPARE_MIN 128
/* Besides the runs'. */
#define DESCRIPTORS_RESERVE (DESCRIPTORS_OWN + DESCRIPTORS_SPARE_MIN)

#endif
