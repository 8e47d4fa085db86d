#include "sandboxd/init/control.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* Room for the descriptors and the sender's credentials. */
#define CONTROL_ANCILLARY_BYTES (CMSG_SPACE(CONTROL_FDS_MAX * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred)))

void control_close_fds(struct control_message *message)
{
    for (size_t i = 0; i < message->fd_count; i++)
        close(message->fds[i]);
    message->fd_count = 0;
}

/* What errno means for the channel. */
static enum control_result result_of_errno(void)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        return CONTROL_AGAIN;
    if (errno == EPIPE || errno == ECONNRESET)
        return CONTROL_CLOSED;
    return CONTROL_FAILED;
}

enum control_result control_send(int socket_fd, const struct control_message *message)
{
    _Alignas(struct cmsghdr) char ancillary[CONTROL_ANCILLARY_BYTES] = {0};
    struct iovec parts[2] = {
        {.iov_base = (void *)&message->header, .iov_len = sizeof message->header},
        {.iov_base = (void *)message->payload, .iov_len = message->payload_bytes},
    };
    struct msghdr packet = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t sent;

    if (message->fd_count > 0) {
        size_t bytes = message->fd_count * sizeof(int);
        struct cmsghdr *rights;

        packet.msg_control = ancillary;
        packet.msg_controllen = CMSG_SPACE(bytes);
        rights = CMSG_FIRSTHDR(&packet);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(bytes);
        memcpy(CMSG_DATA(rights), message->fds, bytes);
    }
    do {
        sent = sendmsg(socket_fd, &packet, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? result_of_errno() : CONTROL_OK;
}

/* Takes descriptors and credentials out of the ancillary data. */
static void take_ancillary(struct msghdr *packet, struct control_message *message)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(packet); c != NULL; c = CMSG_NXTHDR(packet, c)) {
        if (c->cmsg_level != SOL_SOCKET)
            continue;
        if (c->cmsg_type == SCM_RIGHTS) {
            size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

            for (size_t i = 0; i < count && message->fd_count < CONTROL_FDS_MAX; i++)
                memcpy(&message->fds[message->fd_count++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
        } else if (c->cmsg_type == SCM_CREDENTIALS) {
            struct ucred credentials;

            memcpy(&credentials, CMSG_DATA(c), sizeof credentials);
            message->sender = credentials.pid;
        }
    }
}

enum control_result control_receive(int socket_fd, struct control_message *message)
{
    _Alignas(struct cmsghdr) char ancillary[CONTROL_ANCILLARY_BYTES];
    struct iovec parts[2] = {
        {.iov_base = &message->header, .iov_len = sizeof message->header},
        {.iov_base = message->payload, .iov_len = CONTROL_PAYLOAD_MAX_BYTES},
    };
    struct msghdr packet = {
        .msg_iov = parts, .msg_iovlen = 2, .msg_control = ancillary, .msg_controllen = sizeof ancillary};
    ssize_t got;

    message->sender = 0;
    message->fd_count = 0;
    do {
        got = recvmsg(socket_fd, &packet, MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        return result_of_errno();
    if (got == 0)
        return CONTROL_CLOSED;
    take_ancillary(&packet, message);
    if ((size_t)got < sizeof message->header || (packet.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
        control_close_fds(message);
        return CONTROL_MALFORMED;
    }
    message->payload_bytes = (size_t)got - sizeof message->header;
    message->payload[message->payload_bytes] = '\0';
    return CONTROL_OK;
}
