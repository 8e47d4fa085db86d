/* What the files of the jail share: the arguments of bwrap, and what is done as root before it. */
#ifndef SANDBOXD_JAIL_INTERNAL_H
#define SANDBOXD_JAIL_INTERNAL_H

#include "sandboxd/jail.h"

/* Descriptors that one bwrap inherits. */
#define JAIL_FDS_MAX 16

/* Paths that only this process can be sure to reach: where they are staged, in a mount namespace of the child. */
struct jail_sources {
    const char *init_path;
    const char *template_folder; /* as this process sees it, or NULL; see template.h */
    bool is_staged;              /* bwrap finds the first two at JAIL_STAGED_... */
    bool has_usr;                /* the template has files for /usr: then it is staged */
};

/* The NUL-separated arguments of a bwrap, in a memfd, and the descriptors they name. */
struct jail_arguments {
    int args_fd;
    size_t fd_count;
    int fds[JAIL_FDS_MAX];
};

/* Builds the arguments; false with errno. Free them in either case. */
bool jail_arguments_build(struct jail_arguments *arguments, const struct jail_sources *sources,
                          const struct jail_limits *limits, const void *seccomp, size_t seccomp_bytes)
    __attribute__((warn_unused_result));
void jail_arguments_free(struct jail_arguments *arguments);

/* More than any place of a sandbox can hold: a full one is told by ENOSPC, and only a memfd meets this limit. */
unsigned long long jail_file_limit_bytes(const struct jail_limits *limits);

/* All that a sandbox's places can hold together. */
unsigned long long jail_places_bytes(const struct jail_limits *limits);

/* Where jail_mounts_prepare() puts things. */
#define JAIL_STAGED_INIT     "/tmp/init"
#define JAIL_STAGED_TEMPLATE "/tmp/template"
#define JAIL_STAGED_USR      "/tmp/usr"

/*
 * In a child that may mount, before it gives up its uid: makes init and the template reachable by the sandbox's uid
 * wherever they lie (a repository below /root is not), and lays the template's files over those of /usr, in a mount
 * namespace of the child's own. NULL, or what failed with errno.
 */
const char *jail_mounts_prepare(const struct jail_sources *sources) __attribute__((warn_unused_result));

#endif
