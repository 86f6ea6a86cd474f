/*
 * Sends a message on each connection, waits for its echo, sends the next.
 *
 *   round-trip BYTES CONNECTIONS MILLISECONDS IP PORT [gates]
 *
 * Every connection is opened and used once before the clock starts. Every byte is compared. Prints
 * the percentiles of all round trips. With `gates` it says "open" and waits for a line on stdin
 * before the first of them, and keeps the connections until stdin ends, so that neither opening nor
 * closing is measured.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tool.h"

#define EVENTS_MAX 256
#define SECONDS_MAX 60

struct connection {
  int peer;
  size_t received;
  uint64_t sent_at;
};

static unsigned char *message;
static size_t message_bytes;

static void send_message(struct connection *connection) {
  connection->received = 0;
  connection->sent_at = now_ns();
  if (write_all(connection->peer, message, message_bytes) != 0) {
    fail_from(connection->peer, "send");
  }
}

/* Whether the echo is complete now. */
static int receive_echo(struct connection *connection, unsigned char *buffer) {
  ssize_t count =
      recv(connection->peer, buffer, message_bytes - connection->received, MSG_DONTWAIT);
  if (count < 0 && errno == EAGAIN) return 0;
  if (count == 0) errno = 0;
  if (count <= 0) fail_from(connection->peer, count == 0 ? "closed before the echo" : "receive");
  if (memcmp(buffer, message + connection->received, (size_t)count) != 0) {
    errno = 0;
    fail_from(connection->peer, "another byte came back than was sent");
  }
  connection->received += (size_t)count;
  return connection->received == message_bytes;
}

/* Whether more came; waits for it. */
static int read_stdin(void) {
  char ignored;
  return read(STDIN_FILENO, &ignored, 1) > 0;
}

int main(int argc, char **argv) {
  if (argc != 6 && argc != 7) fail("usage: see the head of round-trip.c");
  int has_gates = argc == 7;
  if (has_gates && strcmp(argv[6], "gates") != 0) fail("the last word is gates");
  limit_seconds(SECONDS_MAX);
  raise_file_limit();
  message_bytes = parse_count(argv[1]);
  size_t count = parse_count(argv[2]);
  uint64_t duration_ns = parse_count(argv[3]) * 1000000u;
  struct sockaddr_in address = parse_address(argv[4], argv[5]);
  message = malloc(message_bytes);
  unsigned char *buffer = malloc(message_bytes);
  struct connection *connections = calloc(count, sizeof *connections);
  if (message == NULL || buffer == NULL || connections == NULL) fail("no memory");
  fill_message(message, message_bytes);

  int epoll = epoll_create1(EPOLL_CLOEXEC);
  for (size_t i = 0; i < count; i++) {
    connections[i].peer = connect_to(&address);
    if (write_all(connections[i].peer, message, message_bytes) != 0 ||
        read_all(connections[i].peer, buffer, message_bytes) != 0) {
      fail_from(connections[i].peer, "first message");
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &connections[i]};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, connections[i].peer, &event) != 0) fail("epoll");
  }

  if (has_gates) {
    puts("open");
    fflush(stdout);
    read_stdin();
  }
  struct samples samples = {0};
  struct epoll_event events[EVENTS_MAX];
  uint64_t start = now_ns(), end = start + duration_ns;
  for (size_t i = 0; i < count; i++) send_message(&connections[i]);
  for (size_t open = count; open > 0;) {
    int ready = epoll_wait(epoll, events, EVENTS_MAX, -1);
    for (int i = 0; i < ready; i++) {
      struct connection *connection = events[i].data.ptr;
      if (!receive_echo(connection, buffer)) continue;
      uint64_t now = now_ns();
      note_sample(&samples, now - connection->sent_at);
      if (now < end) {
        send_message(connection);
      } else {
        open--;
      }
    }
  }
  print_samples(&samples, now_ns() - start);
  fflush(stdout);
  while (has_gates && read_stdin()) continue;
  return 0;
}
