#include "sandboxd/seccomp_filter.h"

#include <errno.h>
#include <sched.h>
#include <seccomp.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* A filter larger than this is a bug: the kernel takes 4,096 instructions of 8 bytes. */
#define FILTER_MAX_BYTES (4096 * 8)

/* Refused with EPERM whatever their arguments. A name this kernel or libseccomp does not know is passed over. */
static const char *const forbidden[] = {
    /* mounts and namespaces */
    "mount", "umount", "umount2", "pivot_root", "chroot", "unshare", "setns", "open_tree", "move_mount", "fsopen",
    "fsconfig", "fsmount", "fspick", "mount_setattr", "open_by_handle_at", "name_to_handle_at", "quotactl",
    "quotactl_fd", "swapon", "swapoff", "listmount", "statmount",
    /* other processes */
    "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "kcmp", "pidfd_getfd",
    "move_pages", "migrate_pages",
    /* large parts of the kernel */
    "bpf", "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key", "lookup_dcookie", "fanotify_init",
    "syslog", "acct", "nfsservctl", "vm86", "vm86old", "modify_ldt",
    /* the machine */
    "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "create_module", "query_module",
    "get_kernel_syms", "reboot", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "stime", "sethostname",
    "setdomainname", "iopl", "ioperm", "vhangup", "_sysctl", "uselib", "ustat", "sysfs"};

/* Answered as if the kernel did not have them, so that libraries fall back to what the filter can see through. */
static const char *const absent[] = {"clone3", "io_uring_setup", "io_uring_enter", "io_uring_register", "memfd_secret"};

/* Calls that this libseccomp may have no name for; the same number on every architecture since 424. */
#define CALL_STATMOUNT      457
#define CALL_LISTMOUNT      458
#define CALL_OPEN_TREE_ATTR 467
#define CALL_LISTNS         470
static const int forbidden_numbers[] = {CALL_STATMOUNT, CALL_LISTMOUNT, CALL_OPEN_TREE_ATTR, CALL_LISTNS};
/* Calls that Linux got after this was written, from here on, are absent until somebody has looked at them. */
#define CALL_UNKNOWN_FIRST 471
#define CALL_UNKNOWN_LAST  511

/* New namespaces by clone(2). */
static const unsigned long namespaces[] = {CLONE_NEWUSER, CLONE_NEWNS,  CLONE_NEWPID,   CLONE_NEWNET,
                                           CLONE_NEWIPC,  CLONE_NEWUTS, CLONE_NEWCGROUP};

/* Kinds of sockets that a sandbox has; every other one leads around its network namespace (vsock to the hypervisor),
 * or into rarely used parts of the kernel. */
static const int families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};
/* AF_MAX grows; what is above is refused too. */
#define FAMILY_LAST 63

/* Requests that type into or take over a terminal. */
static const unsigned long terminal_requests[] = {TIOCSTI, TIOCLINUX, TIOCCONS, TIOCSETD};

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* Refuses the named calls with an errno; 0 or a negative errno, as all of libseccomp. */
static int refuse(scmp_filter_ctx filter, const char *const *names, size_t count, int error)
{
    for (size_t i = 0; i < count; i++) {
        int call = seccomp_syscall_resolve_name(names[i]);
        int result;

        if (call == __NR_SCMP_ERROR)
            continue;
        result = seccomp_rule_add(filter, SCMP_ACT_ERRNO((unsigned)error), call, 0);
        /* A name of another architecture cannot be made here either. */
        if (result < 0 && result != -EDOM)
            return result;
    }
    return 0;
}

/* Refuses calls by their numbers. */
static int refuse_numbers(scmp_filter_ctx filter)
{
    int result = 0;

    for (size_t i = 0; i < COUNT(forbidden_numbers) && result == 0; i++)
        result = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), forbidden_numbers[i], 0);
    for (int call = CALL_UNKNOWN_FIRST; call <= CALL_UNKNOWN_LAST && result == 0; call++)
        result = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), call, 0);
    return result;
}

static bool has_family(int family)
{
    for (size_t i = 0; i < COUNT(families); i++) {
        if (families[i] == family)
            return true;
    }
    return false;
}

/* Refuses all kinds of sockets but those of the table. */
static int refuse_families(scmp_filter_ctx filter)
{
    int result = 0;

    for (int family = 0; family <= FAMILY_LAST && result == 0; family++) {
        if (!has_family(family))
            result = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1,
                                      SCMP_A0(SCMP_CMP_EQ, (unsigned)family, 0));
    }
    /* The kernel looks at the low half only, we at all of it: what has a high half is above too. */
    if (result == 0)
        result = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1,
                                  SCMP_A0(SCMP_CMP_GT, FAMILY_LAST, 0));
    return result;
}

/* Refuses calls by one of their arguments. */
static int refuse_by_argument(scmp_filter_ctx filter)
{
    int result = 0;

    for (size_t i = 0; i < COUNT(namespaces) && result == 0; i++) {
        result = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
                                  SCMP_A0(SCMP_CMP_MASKED_EQ, namespaces[i], namespaces[i]));
    }
    /* The kernel looks at the low half of the request only: so do we. */
    for (size_t i = 0; i < COUNT(terminal_requests) && result == 0; i++) {
        result = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(ioctl), 1,
                                  SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffffUL, terminal_requests[i]));
    }
    return result;
}

/* Writes the program of a filter into memory of ours. */
static bool export_program(scmp_filter_ctx filter, void **program, size_t *bytes)
{
    int fd = memfd_create("seccomp", MFD_CLOEXEC);
    char *copy = malloc(FILTER_MAX_BYTES);
    int result = fd < 0 || copy == NULL ? -errno : seccomp_export_bpf(filter, fd);
    ssize_t got = -1;

    if (result == 0)
        got = pread(fd, copy, FILTER_MAX_BYTES, 0);
    else
        errno = -result;
    if (fd >= 0)
        close(fd);
    if (got <= 0) {
        free(copy);
        return false;
    }
    *program = copy;
    *bytes = (size_t)got;
    return true;
}

/* Refuses calls by their names. */
static int refuse_names(scmp_filter_ctx filter)
{
    int result = refuse(filter, forbidden, COUNT(forbidden), EPERM);

    return result == 0 ? refuse(filter, absent, COUNT(absent), ENOSYS) : result;
}

/* Other architectures number their calls in another way: whoever makes one (int 0x80, x32) is killed. */
static int refuse_architectures(scmp_filter_ctx filter)
{
    /* libseccomp asks the kernel whether it knows this, which a service's own filter may not let it do: then it is the
     * thread that is killed, as without our asking. */
    int result = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);

    return result == -EINVAL ? 0 : result;
}

bool seccomp_filter_export(void **program, size_t *bytes)
{
    static int (*const parts[])(scmp_filter_ctx filter) = {refuse_architectures, refuse_names, refuse_numbers,
                                                           refuse_by_argument, refuse_families};
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    int result = filter == NULL ? -ENOMEM : 0;
    bool done = false;

    for (size_t i = 0; i < COUNT(parts) && result == 0; i++)
        result = parts[i](filter);
    if (result == 0)
        done = export_program(filter, program, bytes);
    else
        errno = -result;
    if (filter != NULL)
        seccomp_release(filter);
    return done;
}
