/*
 * Opens connections, sends 100 bytes on each, waits for their echo, closes; so many at a time.
 *
 *   connect-rate CONNECTIONS AT-A-TIME IP PORT
 *
 * Prints the percentiles of the time from connect to the last byte of the echo.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tool.h"

#define MESSAGE_BYTES 100
#define EVENTS_MAX 256
#define SECONDS_MAX 60

struct attempt {
  int peer;
  int is_connected;
  size_t received;
  uint64_t started_at;
};

static unsigned char message[MESSAGE_BYTES];

static void start_attempt(int epoll, struct attempt *attempt, const struct sockaddr_in *address) {
  attempt->is_connected = 0;
  attempt->received = 0;
  attempt->started_at = now_ns();
  attempt->peer = begin_connect(address);
  struct epoll_event event = {.events = EPOLLOUT, .data.ptr = attempt};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, attempt->peer, &event) != 0) fail("epoll");
}

/* Whether the attempt is over now. */
static int advance(int epoll, struct attempt *attempt) {
  if (!attempt->is_connected) {
    if (write_all(attempt->peer, message, MESSAGE_BYTES) != 0) {
      fail_from(attempt->peer, "connect or send");
    }
    attempt->is_connected = 1;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = attempt};
    if (epoll_ctl(epoll, EPOLL_CTL_MOD, attempt->peer, &event) != 0) fail("epoll");
    return 0;
  }
  unsigned char buffer[MESSAGE_BYTES];
  ssize_t count = recv(attempt->peer, buffer, MESSAGE_BYTES - attempt->received, MSG_DONTWAIT);
  if (count < 0 && errno == EAGAIN) return 0;
  if (count == 0) errno = 0;
  if (count <= 0) fail_from(attempt->peer, count == 0 ? "closed before the echo" : "receive");
  if (memcmp(buffer, message + attempt->received, (size_t)count) != 0) {
    errno = 0;
    fail_from(attempt->peer, "another byte came back than was sent");
  }
  attempt->received += (size_t)count;
  if (attempt->received < MESSAGE_BYTES) return 0;
  close(attempt->peer);
  return 1;
}

int main(int argc, char **argv) {
  if (argc != 5) fail("usage: see the head of connect-rate.c");
  limit_seconds(SECONDS_MAX);
  size_t count = parse_count(argv[1]);
  size_t at_a_time = parse_count(argv[2]);
  struct sockaddr_in address = parse_address(argv[3], argv[4]);
  struct attempt *attempts = calloc(at_a_time, sizeof *attempts);
  if (attempts == NULL) fail("no memory");
  fill_message(message, MESSAGE_BYTES);

  int epoll = epoll_create1(EPOLL_CLOEXEC);
  struct samples samples = {0};
  struct epoll_event events[EVENTS_MAX];
  size_t started = 0;
  uint64_t start = now_ns();
  for (; started < at_a_time && started < count; started++) {
    start_attempt(epoll, &attempts[started], &address);
  }
  while (samples.count < count) {
    int ready = epoll_wait(epoll, events, EVENTS_MAX, -1);
    for (int i = 0; i < ready; i++) {
      struct attempt *attempt = events[i].data.ptr;
      if (!advance(epoll, attempt)) continue;
      note_sample(&samples, now_ns() - attempt->started_at);
      if (started == count) continue;
      started++;
      start_attempt(epoll, attempt, &address);
    }
  }
  print_samples(&samples, now_ns() - start);
  return 0;
}
