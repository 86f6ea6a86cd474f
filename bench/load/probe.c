/*
 * Tries round trips of 100 bytes at a fixed rate and says of each how it went, so that whoever knows
 * what should have happened at that moment can judge it.
 *
 *   probe new|kept PER-SECOND MILLISECONDS IP PORT
 *
 * `new` opens a connection for each and closes it; `kept` goes round on one connection, which is
 * opened again when it has ended, and leaves out turns while an echo is outstanding. Prints a line each:
 * when it was begun and when it ended (milliseconds of the monotonic clock), and `ok`, `refused`,
 * `reset`, `closed`, `silent` (for 10 s) or `wrong` (another byte than was sent).
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
#define EVENTS_MAX 64
#define SILENCE_NS 10000000000u
#define GRACE_SECONDS 20

struct attempt {
  int peer;
  int has_sent;
  size_t received;
  uint64_t begun_ns;
  struct attempt *next, *previous;
};

static unsigned char message[MESSAGE_BYTES];
static struct sockaddr_in server;
static int epoll;
/* Outstanding ones, the oldest first. */
static struct attempt *first, *last;
/* The connection that is kept, between two round trips. */
static int kept_peer = -1;

static void append(struct attempt *attempt) {
  attempt->previous = last;
  attempt->next = NULL;
  if (last != NULL) last->next = attempt;
  else first = attempt;
  last = attempt;
}

static void unlink_attempt(struct attempt *attempt) {
  if (attempt->previous != NULL) attempt->previous->next = attempt->next;
  else first = attempt->next;
  if (attempt->next != NULL) attempt->next->previous = attempt->previous;
  else last = attempt->previous;
}

static void begin(void) {
  struct attempt *attempt = calloc(1, sizeof *attempt);
  if (attempt == NULL) fail("no memory");
  attempt->begun_ns = now_ns();
  attempt->peer = kept_peer >= 0 ? kept_peer : begin_connect(&server);
  kept_peer = -1;
  struct epoll_event event = {.events = EPOLLOUT, .data.ptr = attempt};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, attempt->peer, &event) != 0) fail("epoll");
  append(attempt);
}

static void finish(struct attempt *attempt, const char *outcome, int keeps) {
  printf("%.3f %.3f %s\n", (double)attempt->begun_ns / 1e6, (double)now_ns() / 1e6, outcome);
  if (keeps && strcmp(outcome, "ok") == 0) {
    epoll_ctl(epoll, EPOLL_CTL_DEL, attempt->peer, NULL);
    kept_peer = attempt->peer;
  } else {
    close(attempt->peer);
  }
  unlink_attempt(attempt);
  free(attempt);
}

/* NULL while it goes on. */
static const char *advance(struct attempt *attempt) {
  if (!attempt->has_sent) {
    if (write_all(attempt->peer, message, MESSAGE_BYTES) != 0) {
      return errno == ECONNRESET || errno == EPIPE ? "reset" : "refused";
    }
    attempt->has_sent = 1;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = attempt};
    if (epoll_ctl(epoll, EPOLL_CTL_MOD, attempt->peer, &event) != 0) fail("epoll");
    return NULL;
  }
  unsigned char buffer[MESSAGE_BYTES];
  ssize_t count = recv(attempt->peer, buffer, MESSAGE_BYTES - attempt->received, MSG_DONTWAIT);
  if (count < 0) return errno == EAGAIN ? NULL : "reset";
  if (count == 0) return "closed";
  if (memcmp(buffer, message + attempt->received, (size_t)count) != 0) return "wrong";
  attempt->received += (size_t)count;
  return attempt->received == MESSAGE_BYTES ? "ok" : NULL;
}

int main(int argc, char **argv) {
  if (argc != 6) fail("usage: see the head of probe.c");
  int keeps = strcmp(argv[1], "kept") == 0;
  uint64_t per_second = parse_count(argv[2]);
  uint64_t duration_ms = parse_count(argv[3]);
  server = parse_address(argv[4], argv[5]);
  limit_seconds((unsigned)(duration_ms / 1000) + GRACE_SECONDS);
  fill_message(message, MESSAGE_BYTES);
  setvbuf(stdout, NULL, _IOLBF, 0);
  epoll = epoll_create1(EPOLL_CLOEXEC);
  int timer = make_timer();
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event) != 0) fail("epoll");
  uint64_t start = now_ns();
  struct pace pace = {.start_ns = start,
                      .end_ns = start + duration_ms * 1000000u,
                      .interval_ns = 1e9 / (double)per_second};
  for (uint64_t due = next_due(&pace);;) {
    while (due <= now_ns()) {
      if (!keeps || first == NULL) begin();
      pace.started++;
      due = next_due(&pace);
    }
    if (due == UINT64_MAX && first == NULL) return 0;
    uint64_t silent_at = first == NULL ? UINT64_MAX : first->begun_ns + SILENCE_NS;
    arm_timer(timer, due < silent_at ? due : silent_at);
    struct epoll_event events[EVENTS_MAX];
    int ready = epoll_wait(epoll, events, EVENTS_MAX, -1);
    for (int i = 0; i < ready; i++) {
      struct attempt *attempt = events[i].data.ptr;
      uint64_t expirations;
      if (attempt == NULL) {
        if (read(timer, &expirations, sizeof expirations) < 0 && errno != EAGAIN) fail("timer");
        continue;
      }
      const char *outcome = advance(attempt);
      if (outcome != NULL) finish(attempt, outcome, keeps);
    }
    while (first != NULL && now_ns() - first->begun_ns > SILENCE_NS) finish(first, "silent", keeps);
  }
}
