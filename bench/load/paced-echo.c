/*
 * Sends messages at a fixed rate, whether or not the echoes of the ones before have come back.
 *
 *   paced-echo BYTES CONNECTIONS PER-SECOND MILLISECONDS THREADS IP PORT
 *
 * Connections take turns and are shared among the threads. Every byte is compared. Prints the
 * percentiles of the time from the moment that a message was due, not from when it could be sent,
 * to the last byte of its echo.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tool.h"

#define EVENTS_MAX 256
#define READ_BYTES (64 * 1024)
#define GRACE_SECONDS 20

struct connection {
  int peer;
  /* Bytes that are due and not in the kernel yet. */
  size_t unsent;
  /* Of the echo that comes first. */
  size_t received;
  /* When the messages were due whose echoes are outstanding; a ring. */
  uint64_t *due_ns;
  size_t first;
  size_t outstanding;
  size_t capacity;
  int wants_out;
};

struct worker {
  struct sockaddr_in address;
  size_t connection_count;
  struct pace pace;
  struct connection *connections;
  int epoll;
  unsigned char *buffer;
  struct samples samples;
};

static unsigned char *message;
static size_t message_bytes;

static void note_due(struct connection *connection, uint64_t due_ns) {
  if (connection->outstanding == connection->capacity) {
    size_t capacity = connection->capacity == 0 ? 16 : connection->capacity * 2;
    uint64_t *ring = malloc(capacity * sizeof *ring);
    if (ring == NULL) fail("no memory");
    for (size_t i = 0; i < connection->outstanding; i++) {
      ring[i] = connection->due_ns[(connection->first + i) % connection->capacity];
    }
    free(connection->due_ns);
    connection->due_ns = ring;
    connection->first = 0;
    connection->capacity = capacity;
  }
  size_t last = (connection->first + connection->outstanding++) % connection->capacity;
  connection->due_ns[last] = due_ns;
}

static void send_what_is_due(int epoll, struct connection *connection) {
  while (connection->unsent > 0) {
    size_t rest = connection->unsent % message_bytes;
    if (rest == 0) rest = message_bytes;
    ssize_t count = send(connection->peer, message + message_bytes - rest, rest,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0 && errno == EAGAIN) break;
    if (count <= 0) fail_from(connection->peer, "send");
    connection->unsent -= (size_t)count;
  }
  int wants_out = connection->unsent > 0;
  if (wants_out == connection->wants_out) return;
  connection->wants_out = wants_out;
  struct epoll_event event = {.events = EPOLLIN | (wants_out ? EPOLLOUT : 0),
                              .data.ptr = connection};
  if (epoll_ctl(epoll, EPOLL_CTL_MOD, connection->peer, &event) != 0) fail("epoll");
}

static void receive_echoes(struct worker *worker, struct connection *connection) {
  ssize_t count = recv(connection->peer, worker->buffer, READ_BYTES, MSG_DONTWAIT);
  if (count < 0 && errno == EAGAIN) return;
  if (count == 0) errno = 0;
  if (count <= 0) fail_from(connection->peer, count == 0 ? "closed before the echo" : "receive");
  for (size_t at = 0; at < (size_t)count;) {
    size_t piece = message_bytes - connection->received;
    if (piece > (size_t)count - at) piece = (size_t)count - at;
    errno = 0;
    if (connection->outstanding == 0) fail_from(connection->peer, "more came back than was sent");
    if (memcmp(worker->buffer + at, message + connection->received, piece) != 0) {
      fail_from(connection->peer, "another byte came back than was sent");
    }
    at += piece;
    connection->received += piece;
    if (connection->received < message_bytes) continue;
    connection->received = 0;
    note_sample(&worker->samples, now_ns() - connection->due_ns[connection->first]);
    connection->first = (connection->first + 1) % connection->capacity;
    connection->outstanding--;
  }
}

static void open_connections(struct worker *worker) {
  worker->epoll = epoll_create1(EPOLL_CLOEXEC);
  worker->buffer = malloc(READ_BYTES > message_bytes ? READ_BYTES : message_bytes);
  worker->connections = calloc(worker->connection_count, sizeof *worker->connections);
  if (worker->buffer == NULL || worker->connections == NULL) fail("no memory");
  for (size_t i = 0; i < worker->connection_count; i++) {
    struct connection *connection = &worker->connections[i];
    connection->peer = connect_to(&worker->address);
    if (write_all(connection->peer, message, message_bytes) != 0 ||
        read_all(connection->peer, worker->buffer, message_bytes) != 0) {
      fail_from(connection->peer, "first message");
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    if (epoll_ctl(worker->epoll, EPOLL_CTL_ADD, connection->peer, &event) != 0) fail("epoll");
  }
}

static void *run(void *argument) {
  struct worker *worker = argument;
  struct pace *pace = &worker->pace;
  int timer = make_timer();
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
  if (epoll_ctl(worker->epoll, EPOLL_CTL_ADD, timer, &event) != 0) fail("epoll");
  uint64_t expected = 0;
  for (uint64_t due = next_due(pace);;) {
    while (due <= now_ns()) {
      struct connection *connection =
          &worker->connections[pace->started++ % worker->connection_count];
      note_due(connection, due);
      connection->unsent += message_bytes;
      send_what_is_due(worker->epoll, connection);
      expected++;
      due = next_due(pace);
    }
    if (due == UINT64_MAX && worker->samples.count == expected) return NULL;
    if (due != UINT64_MAX) arm_timer(timer, due);
    struct epoll_event events[EVENTS_MAX];
    int ready = epoll_wait(worker->epoll, events, EVENTS_MAX, -1);
    for (int i = 0; i < ready; i++) {
      struct connection *connection = events[i].data.ptr;
      uint64_t expirations;
      if (connection == NULL) {
        if (read(timer, &expirations, sizeof expirations) < 0 && errno != EAGAIN) fail("timer");
        continue;
      }
      if (events[i].events & EPOLLOUT) send_what_is_due(worker->epoll, connection);
      if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive_echoes(worker, connection);
    }
  }
}

int main(int argc, char **argv) {
  if (argc != 8) fail("usage: see the head of paced-echo.c");
  message_bytes = parse_count(argv[1]);
  size_t connections = parse_count(argv[2]);
  uint64_t per_second = parse_count(argv[3]);
  uint64_t duration_ms = parse_count(argv[4]);
  size_t threads = parse_count(argv[5]);
  struct sockaddr_in address = parse_address(argv[6], argv[7]);
  if (threads > connections) threads = connections;
  limit_seconds((unsigned)(duration_ms / 1000) + GRACE_SECONDS);
  raise_file_limit();
  message = malloc(message_bytes);
  struct worker *workers = calloc(threads, sizeof *workers);
  if (message == NULL || workers == NULL) fail("no memory");
  fill_message(message, message_bytes);
  for (size_t i = 0; i < threads; i++) {
    workers[i].address = address;
    workers[i].connection_count = connections / threads + (i < connections % threads ? 1 : 0);
    open_connections(&workers[i]);
  }
  double interval_ns = 1e9 / (double)per_second;
  uint64_t start = now_ns();
  for (size_t i = 0; i < threads; i++) {
    workers[i].pace = (struct pace){
        .start_ns = start + (uint64_t)((double)i * interval_ns),
        .end_ns = start + duration_ms * 1000000u,
        .interval_ns = interval_ns * (double)threads,
    };
  }
  run_threads(threads, run, workers, sizeof *workers);
  uint64_t elapsed_ns = now_ns() - start;
  struct samples all = {0};
  for (size_t i = 0; i < threads; i++) merge_samples(&all, &workers[i].samples);
  print_samples(&all, elapsed_ns);
  return 0;
}
