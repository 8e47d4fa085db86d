/*
 * Connections to sandboxd, from their first byte: the control API, envd's files, Process and Filesystem of one sandbox
 * whose init is played here; what that says about files follows "#talk#" in an input, if it is there. However the bytes
 * are cut the first answer has the same status; when the client has left and the sandbox has ended nothing is left of
 * them.
 */
#include "common/log.h"
#include "sandboxd/init/filesystem.h"
#include "sandboxd/sandbox_internal.h"
#include "sandboxd/server.h"
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SANDBOX "i0123456789abcdefghij"
/* Beyond every pid: a signal to it reaches nobody. */
#define NO_PID 0x3fffffff
/* Turns of the loop in which nothing happened, after which nothing will. */
#define QUIET_TURNS  3
#define STATUS_BYTES (sizeof "HTTP/1.1 200" - 1)
#define TALK_MARK    "#talk#"
#define CONTINUE     "HTTP/1.1 100 Continue\r\n\r\n"

/* --- what would start programs ---------------------------------------------------------------------------- */

bool jail_start(struct jail *jail, const char *template_folder, struct jail_process *process,
                char error[static JAIL_ERROR_MAX_BYTES])
{
    (void)jail;
    (void)template_folder;
    (void)process;
    (void)error;
    abort(); /* the one sandbox there may be is there */
}

void jail_release(struct jail *jail, unsigned slot)
{
    (void)jail;
    (void)slot;
}

void jail_balance(struct jail *jail)
{
    (void)jail;
}

void jail_give(const struct jail *jail, unsigned slot, int fd)
{
    (void)jail;
    (void)slot;
    (void)fd;
}

const char *jail_advice(void)
{
    return NULL;
}

/* --- the world -------------------------------------------------------------------------------------------- */

static const struct network network = {.mode = NETWORK_NONE};
static const struct jail_limits limits = {.disk_mib = 16};
static struct sandbox_hooks hooks; /* of a sandbox that sends no notice but answers */
static struct daemon world = {.limits = &limits, .max_sandboxes = 1};
static struct sockaddr_un server_address = {.sun_family = AF_UNIX};
static socklen_t server_length;
static struct sandbox *sandbox;
static int init_fd = -1; /* init's end of its channel */

static void on_notice(void *arg, struct control_message *notice)
{
    sandbox_orders_answer(arg, notice);
}

static void on_broken(void *arg, const char *reason)
{
    (void)arg;
    (void)reason;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    sandbox_end(arg, "end of life", NULL, NULL);
}

static struct sandbox *make_sandbox(void)
{
    static const struct channel_callbacks callbacks = {.notice = on_notice, .broken = on_broken};
    struct sandbox *made = calloc(1, sizeof *made);
    struct sandbox_private *own = calloc(1, sizeof *own);
    char error[EGRESS_ERROR_MAX_BYTES];
    int ends[2];

    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    *made = (struct sandbox){.template_name = strdup("base"),
                             .envs = json_object(),
                             .egress = egress_new(NULL, error),
                             .timeout_s = 300,
                             .state = SANDBOX_RUNNING,
                             .table = world.sandboxes,
                             .private = own};
    strcpy(made->id, SANDBOX);
    own->bwrap_pid = NO_PID;
    own->init_pidfd = own->errors_fd = -1;
    own->timer = evtimer_new(world.base, on_timer, made);
    own->channel = channel_new(world.base, ends[0], &callbacks, made);
    init_fd = ends[1];
    LIST_INSERT_HEAD(sandbox_bucket(world.sandboxes, SANDBOX), made, next);
    world.sandboxes->count++;
    sandbox_set_lifetime(made, 300);
    return made;
}

static void end_sandbox(void)
{
    if (sandbox->state != SANDBOX_ENDING)
        sandbox_end(sandbox, "done", NULL, NULL);
    sandbox_table_reaped(world.sandboxes, NO_PID, 0);
    close(init_fd);
    FUZZ_CHECK(sandbox_table_count(world.sandboxes) == 0);
}

static void set_up(void)
{
    int listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    log_set_level(LOG_LEVEL_ERROR);
    signal(SIGPIPE, SIG_IGN); /* as main() does */
    world.base = event_base_new();
    world.sandboxes = sandbox_table_new(world.base, NULL, &network, &hooks);
    /* A name of its own in no file system: the kernel chooses it. */
    FUZZ_CHECK(bind(listen_fd, (struct sockaddr *)&server_address, sizeof server_address.sun_family) == 0 &&
               listen(listen_fd, 8) == 0);
    server_length = sizeof server_address;
    FUZZ_CHECK(getsockname(listen_fd, (struct sockaddr *)&server_address, &server_length) == 0);
    FUZZ_CHECK(server_new(&world, listen_fd, NULL) != NULL);
}

/* --- the init of the sandbox ------------------------------------------------------------------------------ */

static void answer(const struct control_message *order, enum control_kind kind, int value, int fd)
{
    struct control_message notice = {
        .header = {.kind = kind, .tag = order->header.tag, .value = value}, .fd_count = fd >= 0, .fds = {fd}};

    (void)!control_send(init_fd, &notice);
    if (fd >= 0)
        close(fd);
}

static int a_file(void)
{
    int fd = memfd_create("file", MFD_CLOEXEC);

    FUZZ_CHECK(fd >= 0 && write(fd, "hello", 5) == 5 && lseek(fd, 0, SEEK_SET) == 0);
    return fd;
}

/* What is said in each conversation about files; NULL: that it is done. */
static const uint8_t *talk_bytes;
static size_t talk_size;

static void talk(int fd)
{
    static const struct filesystem_record done = {.kind = FILESYSTEM_DONE};
    const void *bytes = talk_bytes != NULL ? talk_bytes : (const void *)&done;

    (void)!send(fd, bytes, talk_bytes != NULL ? talk_size : sizeof done, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* True when there was an order. */
static bool play_init(void)
{
    struct control_message order;

    if (control_receive(init_fd, &order) != CONTROL_OK)
        return false;
    switch (order.header.kind) {
    case CONTROL_OPEN:
        if (strstr(order.payload, "missing") != NULL)
            answer(&order, CONTROL_OPENED, -ENOENT, -1);
        else
            answer(&order, CONTROL_OPENED, 0, a_file());
        break;
    case CONTROL_SPAWN:
    case CONTROL_SPAWN_PTY:
        answer(&order, CONTROL_SPAWNED, 42, -1);
        break;
    case CONTROL_FREEZE:
        answer(&order, CONTROL_FROZEN, 0, -1);
        break;
    case CONTROL_FILESYSTEM:
        talk(order.fds[0]);
        break;
    default:
        break;
    }
    control_close_fds(&order);
    return true;
}

/* --- the client ------------------------------------------------------------------------------------------- */

/* What was answered first: "HTTP/1.1 200", or nothing. Whether there is a 100 before it depends on how bytes come. */
struct answered {
    char begin[sizeof CONTINUE + STATUS_BYTES];
    size_t bytes;
};

static void note_begin(struct answered *answered, const char *bytes, size_t length)
{
    for (size_t i = 0; i < length && answered->bytes < sizeof answered->begin - 1; i++) {
        answered->begin[answered->bytes++] = bytes[i];
        if (answered->bytes == sizeof CONTINUE - 1 && strcmp(answered->begin, CONTINUE) == 0)
            *answered = (struct answered){.bytes = 0};
    }
}

/* Takes what has come; false when there was nothing. */
static bool take(int fd, struct answered *answered)
{
    char bytes[16384];
    ssize_t got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);

    if (got > 0)
        note_begin(answered, bytes, (size_t)got);
    return got > 0;
}

static void turn(int fd, struct answered *answered)
{
    for (int quiet = 0; quiet < QUIET_TURNS; quiet++) {
        event_base_loop(world.base, EVLOOP_NONBLOCK);
        if (play_init())
            quiet = 0;
        if (fd >= 0 && take(fd, answered))
            quiet = 0;
    }
}

static struct answered play(const uint8_t *data, size_t size, struct fuzz_pieces *pieces)
{
    struct answered answered = {.bytes = 0};
    size_t descriptors = fuzz_count_descriptors();
    int fd;

    sandbox = make_sandbox();
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    FUZZ_CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&server_address, server_length) == 0);
    for (size_t at = 0; at < size;) {
        size_t piece = pieces != NULL ? fuzz_next_piece(pieces, size - at) : size - at;
        ssize_t sent = send(fd, data + at, piece, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (sent < 0 && errno != EAGAIN)
            break; /* it has heard enough */
        at += sent > 0 ? (size_t)sent : 0;
        turn(fd, &answered);
        if (sent < 0)
            break; /* it does not read on, nor will it */
    }
    turn(fd, &answered);
    close(fd);
    turn(-1, &answered);
    end_sandbox();
    turn(-1, &answered);
    FUZZ_CHECK(fuzz_count_descriptors() == descriptors);
    FUZZ_CHECK(answered.bytes == 0 || strncmp(answered.begin, "HTTP/", 5) == 0);
    return answered;
}

/* Does a request say how long it may take? That may be shorter than what we do here. */
static bool has_time_limit(const uint8_t *data, size_t size)
{
    static const char name[] = "\nConnect-Timeout-Ms";

    for (size_t at = 0; at + sizeof name - 1 <= size; at++) {
        if (strncasecmp((const char *)data + at, name, sizeof name - 1) == 0)
            return true;
    }
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_pieces pieces = fuzz_pieces_of(data, size);
    struct answered whole, cut;

    const uint8_t *mark = size > 0 ? memmem(data, size, TALK_MARK, sizeof TALK_MARK - 1) : NULL;

    talk_bytes = mark != NULL ? mark + sizeof TALK_MARK - 1 : NULL;
    talk_size = mark != NULL ? size - (size_t)(talk_bytes - data) : 0;
    size = mark != NULL ? (size_t)(mark - data) : size;
    if (world.base == NULL)
        set_up();
    whole = play(data, size, NULL);
    cut = play(data, size, &pieces);
    whole.begin[STATUS_BYTES] = cut.begin[STATUS_BYTES] = '\0';
    if (strcmp(whole.begin, cut.begin) != 0)
        fprintf(stderr, "in one piece \"%s\", in several \"%s\"\n", whole.begin, cut.begin);
    FUZZ_CHECK(has_time_limit(data, size) || strcmp(whole.begin, cut.begin) == 0);
    return 0;
}
