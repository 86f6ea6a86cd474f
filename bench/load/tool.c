#define _GNU_SOURCE
#include "tool.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

/* When `limit_seconds` was called. */
static uint64_t began_at;

uint64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

void fail(const char *what) {
  if (errno != 0) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
  } else {
    fprintf(stderr, "%s\n", what);
  }
  _exit(1);
}

void fail_from(int socket, const char *what) {
  int error = errno;
  struct sockaddr_in own = {0};
  socklen_t length = sizeof own;
  getsockname(socket, (struct sockaddr *)&own, &length);
  fprintf(stderr, "%s%s%s, from port %u, %.0f ms after the start\n", what,
          error == 0 ? "" : ": ", error == 0 ? "" : strerror(error), ntohs(own.sin_port),
          (double)(now_ns() - began_at) / 1e6);
  _exit(1);
}

uint64_t parse_count(const char *text) {
  char *end;
  errno = 0;
  unsigned long long value = strtoull(text, &end, 10);
  if (errno != 0 || *end != 0 || value == 0) fail("not a count");
  return value;
}

struct sockaddr_in parse_address(const char *ip, const char *port) {
  struct sockaddr_in address = {.sin_family = AF_INET};
  uint64_t number = parse_count(port);
  if (number > 65535 || inet_pton(AF_INET, ip, &address.sin_addr) != 1) fail("not an address");
  address.sin_port = htons((uint16_t)number);
  return address;
}

int serve_port(const char *port) {
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  struct sockaddr_in address = parse_address("0.0.0.0", port);
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0) fail("bind");
  if (listen(listener, 4096) != 0) fail("listen");
  puts("listening");
  fflush(stdout);
  return listener;
}

void without_delay(int socket) {
  int on = 1;
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

int connect_to(const struct sockaddr_in *address) {
  int peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (peer < 0) fail("socket");
  without_delay(peer);
  struct timeval limit = {.tv_sec = 10};
  setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(peer, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  if (connect(peer, (const struct sockaddr *)address, sizeof *address) != 0) {
    fail_from(peer, "connect");
  }
  return peer;
}

int begin_connect(const struct sockaddr_in *address) {
  int peer = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (peer < 0) fail("socket");
  without_delay(peer);
  if (connect(peer, (const struct sockaddr *)address, sizeof *address) != 0 &&
      errno != EINPROGRESS) {
    fail_from(peer, "connect");
  }
  return peer;
}

int write_all(int socket, const void *bytes, size_t length) {
  const char *at = bytes;
  while (length > 0) {
    ssize_t written = send(socket, at, length, MSG_NOSIGNAL);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return -1;
    at += written;
    length -= (size_t)written;
  }
  return 0;
}

int read_all(int socket, void *bytes, size_t length) {
  char *at = bytes;
  while (length > 0) {
    ssize_t count = recv(socket, at, length, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return -1;
    at += count;
    length -= (size_t)count;
  }
  return 0;
}

void raise_file_limit(void) {
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
}

static void out_of_time(int signal) {
  (void)signal;
  static const char sentence[] = "the load tool ran out of time\n";
  if (write(STDERR_FILENO, sentence, sizeof sentence - 1) < 0) _exit(2);
  _exit(1);
}

void limit_seconds(unsigned seconds) {
  began_at = now_ns();
  signal(SIGALRM, out_of_time);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  alarm(seconds);
}

void note_sample(struct samples *samples, uint64_t ns) {
  if (samples->count == samples->capacity) {
    samples->capacity = samples->capacity == 0 ? 65536 : samples->capacity * 2;
    samples->ns = realloc(samples->ns, samples->capacity * sizeof *samples->ns);
    if (samples->ns == NULL) fail("no memory for samples");
  }
  samples->ns[samples->count++] = ns;
}

void merge_samples(struct samples *to, struct samples *from) {
  for (size_t i = 0; i < from->count; i++) note_sample(to, from->ns[i]);
  free(from->ns);
  *from = (struct samples){0};
}

uint64_t next_due(const struct pace *pace) {
  uint64_t due = pace->start_ns + (uint64_t)((double)pace->started * pace->interval_ns);
  return due < pace->end_ns ? due : UINT64_MAX;
}

int make_timer(void) {
  /* The kernel may wake a sleeper 50 us late to save power; not one that measures. */
  prctl(PR_SET_TIMERSLACK, 1);
  int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  if (timer < 0) fail("timer");
  return timer;
}

void arm_timer(int timer, uint64_t at_ns) {
  struct itimerspec at = {.it_value = {.tv_sec = (time_t)(at_ns / 1000000000u),
                                       .tv_nsec = (long)(at_ns % 1000000000u)}};
  if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL) != 0) fail("timer");
}

void run_threads(size_t count, void *(*run)(void *), void *jobs, size_t job_bytes) {
  pthread_t *threads = calloc(count, sizeof *threads);
  if (threads == NULL) fail("no memory");
  for (size_t i = 0; i < count; i++) {
    if (pthread_create(&threads[i], NULL, run, (char *)jobs + i * job_bytes) != 0) fail("thread");
  }
  for (size_t i = 0; i < count; i++) pthread_join(threads[i], NULL);
  free(threads);
}

static int ascending(const void *a, const void *b) {
  uint64_t first = *(const uint64_t *)a, second = *(const uint64_t *)b;
  return (first > second) - (first < second);
}

static double percentile_us(const struct samples *samples, double share) {
  return (double)samples->ns[(size_t)((double)(samples->count - 1) * share)] / 1e3;
}

void print_samples(struct samples *samples, uint64_t elapsed_ns) {
  errno = 0;
  if (samples->count == 0) fail("nothing was measured");
  qsort(samples->ns, samples->count, sizeof *samples->ns, ascending);
  printf("{\"count\":%zu,\"seconds\":%.6f,\"p50Us\":%.1f,\"p99Us\":%.1f,\"p999Us\":%.1f,"
         "\"maxUs\":%.1f}\n",
         samples->count, (double)elapsed_ns / 1e9, percentile_us(samples, 0.5),
         percentile_us(samples, 0.99), percentile_us(samples, 0.999), percentile_us(samples, 1));
}

void fill_message(unsigned char *bytes, size_t length) {
  for (size_t i = 0; i < length; i++) bytes[i] = (unsigned char)(i * 167 + (i >> 8) + 1);
}
