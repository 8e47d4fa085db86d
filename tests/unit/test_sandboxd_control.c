/* control: the codec of the channel to init, over a real socketpair. */
#include "sandboxd/init/control.h"
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

/* The two ends of one channel. */
static int ends[2];

static int open_channel(void **state)
{
    (void)state;
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends);
}

static int close_channel(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        if (ends[i] >= 0)
            close(ends[i]);
    }
    return 0;
}

static void test_a_message_arrives_whole_with_its_descriptors(void **state)
{
    struct control_message sent = {.header = {.kind = CONTROL_OPEN, .tag = 7, .value = -2, .flags = 9}};
    struct control_message got;
    int on = 1;
    char byte = 0;

    (void)state;
    assert_int_equal(setsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on), 0);
    assert_int_equal(pipe(sent.fds), 0);
    sent.fd_count = 2;
    strcpy(sent.payload, "/path");
    sent.payload_bytes = 5;
    assert_int_equal(control_send(ends[0], &sent), CONTROL_OK);
    assert_int_equal(control_receive(ends[1], &got), CONTROL_OK);
    assert_memory_equal(&got.header, &sent.header, sizeof got.header);
    assert_int_equal(got.payload_bytes, 5);
    assert_string_equal(got.payload, "/path");
    assert_int_equal(got.sender, getpid());
    assert_int_equal(got.fd_count, 2);
    assert_true((fcntl(got.fds[0], F_GETFD) & FD_CLOEXEC) != 0);
    assert_int_equal(write(got.fds[1], "x", 1), 1);
    assert_int_equal(read(sent.fds[0], &byte, 1), 1);
    control_close_fds(&got);
    control_close_fds(&sent);
    assert_int_equal(control_receive(ends[1], &got), CONTROL_AGAIN);
}

static void test_short_and_long_packets_are_malformed(void **state)
{
    static const char bytes[sizeof(struct control_header) + CONTROL_PAYLOAD_MAX_BYTES + 1];
    static const size_t lengths[] = {1, sizeof(struct control_header) - 1, sizeof bytes};
    struct control_message got;

    (void)state;
    for (size_t i = 0; i < COUNT(lengths); i++) {
        assert_int_equal(send(ends[0], bytes, lengths[i], 0), lengths[i]);
        assert_int_equal(control_receive(ends[1], &got), CONTROL_MALFORMED);
    }
    assert_int_equal(send(ends[0], bytes, sizeof bytes - 1, 0), sizeof bytes - 1);
    assert_int_equal(control_receive(ends[1], &got), CONTROL_OK);
    assert_int_equal(got.payload_bytes, CONTROL_PAYLOAD_MAX_BYTES);
}

/* A hostile peer that sends more descriptors than the protocol knows leaves none behind. */
static void test_too_many_descriptors_are_closed(void **state)
{
    enum { SENT = 64 };
    struct control_header header = {.kind = CONTROL_ACCEPTED};
    struct control_message got;
    struct iovec part = {.iov_base = &header, .iov_len = sizeof header};
    _Alignas(struct cmsghdr) char ancillary[CMSG_SPACE(SENT * sizeof(int))] = {0};
    struct msghdr packet = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = ancillary, .msg_controllen = sizeof ancillary};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&packet);
    int before = dup(0), after;

    (void)state;
    close(before);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(SENT * sizeof(int));
    for (size_t i = 0; i < SENT; i++)
        memcpy(CMSG_DATA(rights) + i * sizeof(int), &ends[1], sizeof(int));
    assert_true(sendmsg(ends[0], &packet, 0) > 0);
    assert_int_equal(control_receive(ends[1], &got), CONTROL_MALFORMED);
    after = dup(0);
    close(after);
    assert_int_equal(after, before);
}

static void test_the_other_ends_death_is_seen(void **state)
{
    struct control_message message = {.header = {.kind = CONTROL_HELLO}};

    (void)state;
    close(ends[0]);
    ends[0] = -1;
    assert_int_equal(control_receive(ends[1], &message), CONTROL_CLOSED);
    assert_int_equal(control_send(ends[1], &message), CONTROL_CLOSED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_message_arrives_whole_with_its_descriptors, open_channel, close_channel),
        cmocka_unit_test_setup_teardown(test_short_and_long_packets_are_malformed, open_channel, close_channel),
        cmocka_unit_test_setup_teardown(test_too_many_descriptors_are_closed, open_channel, close_channel),
        cmocka_unit_test_setup_teardown(test_the_other_ends_death_is_seen, open_channel, close_channel),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
