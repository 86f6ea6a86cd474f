/*
 * Moves many bytes and compares each of them where it arrives.
 *
 *   bulk serve PORT
 *   bulk up|down|both BYTES CONNECTIONS IP PORT
 *
 * BYTES are shared among the connections, and with `both` among the directions, which are busy at
 * the same time. A connection starts with a request that names direction and length; what came up
 * is answered with the count of right bytes, after all that goes down. Prints
 * {"bytes":…,"seconds":…}; any difference ends with status 1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tool.h"

/* Prime, so that no swap or repetition of blocks of a round size goes unnoticed. */
#define PERIOD 65521
#define WRITE_BYTES (128 * 1024)
#define READ_BYTES (256 * 1024)
#define SECONDS_MAX 120

/* Bits. */
enum direction { UP = 1, DOWN = 2 };

/* In host order: both ends run on one machine. */
struct request {
  char magic[4];
  uint32_t direction;
  uint64_t length;
};

static const char MAGIC[4] = "BULK";
static unsigned char pattern[PERIOD + READ_BYTES];

static void fill_pattern(void) {
  uint64_t state = 0x9e3779b97f4a7c15u;
  for (size_t i = 0; i < sizeof pattern; i++) {
    if (i >= PERIOD) {
      pattern[i] = pattern[i - PERIOD];
      continue;
    }
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    pattern[i] = (unsigned char)(state >> 32);
  }
}

static int send_pattern(int peer, uint64_t length) {
  for (uint64_t sent = 0; sent < length;) {
    size_t chunk = length - sent < WRITE_BYTES ? (size_t)(length - sent) : WRITE_BYTES;
    if (write_all(peer, pattern + sent % PERIOD, chunk) != 0) return -1;
    sent += chunk;
  }
  return 0;
}

/*
 * Reads to the end, or so many bytes. Returns their count, or -1 when one of them differs or a read
 * fails.
 */
static int64_t receive_pattern(int peer, uint64_t length) {
  unsigned char *buffer = malloc(READ_BYTES);
  if (buffer == NULL) fail("no memory");
  uint64_t received = 0;
  ssize_t count = 0;
  while (received < length) {
    uint64_t left = length - received;
    count = recv(peer, buffer, left < READ_BYTES ? left : READ_BYTES, 0);
    if (count <= 0) break;
    if (memcmp(buffer, pattern + received % PERIOD, (size_t)count) != 0) {
      count = -1;
      errno = 0;
      break;
    }
    received += (uint64_t)count;
  }
  free(buffer);
  return count < 0 ? -1 : (int64_t)received;
}

struct flow {
  int peer;
  uint64_t length;
};

/* The client notices what is missing. */
static void *serve_down(void *argument) {
  const struct flow *flow = argument;
  send_pattern(flow->peer, flow->length);
  return NULL;
}

static void *send_up(void *argument) {
  const struct flow *flow = argument;
  if (send_pattern(flow->peer, flow->length) != 0) fail_from(flow->peer, "send");
  shutdown(flow->peer, SHUT_WR);
  return NULL;
}

static void start_thread(void *(*run)(void *), void *argument, pthread_t *thread) {
  if (pthread_create(thread, NULL, run, argument) != 0) fail("thread");
}

static void *serve(void *argument) {
  int peer = (int)(intptr_t)argument;
  struct request request;
  if (read_all(peer, &request, sizeof request) == 0 &&
      memcmp(request.magic, MAGIC, sizeof MAGIC) == 0) {
    struct flow down = {.peer = peer, .length = request.length};
    pthread_t sender;
    int64_t received = 0;
    if (request.direction & DOWN) start_thread(serve_down, &down, &sender);
    if (request.direction & UP) received = receive_pattern(peer, UINT64_MAX);
    if (request.direction & DOWN) pthread_join(sender, NULL);
    if (request.direction & UP) write_all(peer, &received, sizeof received);
  }
  close(peer);
  return NULL;
}

struct job {
  const struct sockaddr_in *address;
  struct request request;
};

static void *transfer(void *argument) {
  const struct job *job = argument;
  uint32_t direction = job->request.direction;
  int64_t length = (int64_t)job->request.length;
  int peer = connect_to(job->address);
  if (write_all(peer, &job->request, sizeof job->request) != 0) {
    fail_from(peer, "request");
  }
  struct flow up = {.peer = peer, .length = (direction & UP) ? job->request.length : 0};
  pthread_t sender;
  start_thread(send_up, &up, &sender);
  if ((direction & DOWN) && receive_pattern(peer, job->request.length) != length) {
    fail_from(peer, "other bytes came down than were sent");
  }
  int64_t arrived;
  if ((direction & UP) && read_all(peer, &arrived, sizeof arrived) != 0) {
    fail_from(peer, "answer");
  }
  if ((direction & UP) && arrived != length) fail_from(peer, "other bytes arrived than were sent");
  char beyond;
  if (recv(peer, &beyond, 1, 0) != 0) fail_from(peer, "no end after the last byte");
  pthread_join(sender, NULL);
  close(peer);
  return NULL;
}

int main(int argc, char **argv) {
  fill_pattern();
  if (argc == 3 && strcmp(argv[1], "serve") == 0) {
    int listener = serve_port(argv[2]);
    for (;;) {
      int peer = accept(listener, NULL, NULL);
      if (peer < 0) continue;
      pthread_t thread;
      start_thread(serve, (void *)(intptr_t)peer, &thread);
      pthread_detach(thread);
    }
  }
  errno = 0;
  if (argc != 6) fail("usage: see the head of bulk.c");
  limit_seconds(SECONDS_MAX);
  size_t connections = parse_count(argv[3]);
  struct sockaddr_in address = parse_address(argv[4], argv[5]);
  struct job job = {.address = &address};
  memcpy(job.request.magic, MAGIC, sizeof MAGIC);
  uint64_t directions = 1;
  if (strcmp(argv[1], "up") == 0) {
    job.request.direction = UP;
  } else if (strcmp(argv[1], "down") == 0) {
    job.request.direction = DOWN;
  } else if (strcmp(argv[1], "both") == 0) {
    job.request.direction = UP | DOWN;
    directions = 2;
  } else {
    fail("up, down or both");
  }
  job.request.length = parse_count(argv[2]) / connections / directions;
  pthread_t *threads = calloc(connections, sizeof *threads);
  if (threads == NULL) fail("no memory");
  uint64_t start = now_ns();
  for (size_t i = 0; i < connections; i++) start_thread(transfer, &job, &threads[i]);
  for (size_t i = 0; i < connections; i++) pthread_join(threads[i], NULL);
  uint64_t bytes = job.request.length * connections * directions;
  printf("{\"bytes\":%llu,\"seconds\":%.6f}\n", (unsigned long long)bytes,
         (double)(now_ns() - start) / 1e9);
  return 0;
}
