/* Linked into the programs of `make coverage` only: a process that ends by _exit() or abort() leaves its counts too,
 * and whoever comes first makes the file of the counts so that every other user can add to it. gcc sees to fork() and
 * the exec calls itself.
 *
 * What a signal ends leaves nothing; tests that kill count for nothing but what others do after it. */
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

void __real___gcov_dump(void);
_Noreturn void __real__exit(int code);
_Noreturn void __real_abort(void);

void __wrap___gcov_dump(void);
_Noreturn void __wrap__exit(int code);
_Noreturn void __wrap_abort(void);

void __wrap___gcov_dump(void)
{
    mode_t before = umask(0);

    __real___gcov_dump();
    umask(before);
}

_Noreturn void __wrap__exit(int code)
{
    __wrap___gcov_dump();
    __real__exit(code);
}

_Noreturn void __wrap_abort(void)
{
    __wrap___gcov_dump();
    __real_abort();
}

/* exit() leads to gcc's own dump, which comes after this. */
__attribute__((destructor)) static void let_all_write(void)
{
    umask(0);
}
