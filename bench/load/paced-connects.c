/*
 * Opens connections at a fixed rate, whether or not the ones before are through: connect, 100 bytes
 * there and back, close.
 *
 *   paced-connects PER-SECOND MILLISECONDS THREADS IP[,IP…] PORT
 *
 * Servers take turns, which also spreads the source ports: each server's address has its own. Prints
 * the percentiles of the time from the moment that a connection was due to the last byte of its echo,
 * and how many were under way at most (in all threads: the sum of their maxima).
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

#define MESSAGE_BYTES 100
#define EVENTS_MAX 256
#define SERVERS_MAX 256
#define GRACE_SECONDS 60

struct attempt {
  int peer;
  int is_connected;
  size_t received;
  uint64_t due_ns;
};

struct worker {
  struct pace pace;
  size_t underway;
  struct samples samples;
};

static unsigned char message[MESSAGE_BYTES];
static struct sockaddr_in servers[SERVERS_MAX];
static size_t server_count;

static void start_attempt(int epoll, uint64_t due_ns, const struct sockaddr_in *server) {
  struct attempt *attempt = calloc(1, sizeof *attempt);
  if (attempt == NULL) fail("no memory");
  attempt->due_ns = due_ns;
  attempt->peer = begin_connect(server);
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
  return attempt->received == MESSAGE_BYTES;
}

static void *run(void *argument) {
  struct worker *worker = argument;
  struct pace *pace = &worker->pace;
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  int timer = make_timer();
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event) != 0) fail("epoll");
  for (uint64_t due = next_due(pace);;) {
    while (due <= now_ns()) {
      start_attempt(epoll, due, &servers[pace->started++ % server_count]);
      worker->underway++;
      due = next_due(pace);
    }
    if (due == UINT64_MAX && worker->underway == 0) break;
    if (due != UINT64_MAX) arm_timer(timer, due);
    struct epoll_event events[EVENTS_MAX];
    int ready = epoll_wait(epoll, events, EVENTS_MAX, -1);
    for (int i = 0; i < ready; i++) {
      struct attempt *attempt = events[i].data.ptr;
      uint64_t expirations;
      if (attempt == NULL) {
        if (read(timer, &expirations, sizeof expirations) < 0 && errno != EAGAIN) fail("timer");
        continue;
      }
      if (!advance(epoll, attempt)) continue;
      note_sample(&worker->samples, now_ns() - attempt->due_ns);
      close(attempt->peer);
      free(attempt);
      worker->underway--;
    }
  }
  close(timer);
  close(epoll);
  return NULL;
}

static void parse_servers(char *ips, const char *port) {
  for (char *ip = strtok(ips, ","); ip != NULL; ip = strtok(NULL, ",")) {
    errno = 0;
    if (server_count == SERVERS_MAX) fail("too many servers");
    servers[server_count++] = parse_address(ip, port);
  }
}

int main(int argc, char **argv) {
  if (argc != 6) fail("usage: see the head of paced-connects.c");
  uint64_t per_second = parse_count(argv[1]);
  uint64_t duration_ms = parse_count(argv[2]);
  size_t threads = parse_count(argv[3]);
  parse_servers(argv[4], argv[5]);
  limit_seconds((unsigned)(duration_ms / 1000) + GRACE_SECONDS);
  raise_file_limit();
  fill_message(message, MESSAGE_BYTES);
  struct worker *workers = calloc(threads, sizeof *workers);
  if (workers == NULL) fail("no memory");
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
