/* What every load tool needs: a clock, sockets, and an end when something is wrong or takes too long. */
#ifndef TOOL_H
#define TOOL_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

/* Monotonic nanoseconds. */
uint64_t now_ns(void);

/* Prints one sentence to stderr, with errno's text if it is set, and ends with status 1. */
void fail(const char *what) __attribute__((noreturn));

/*
 * As `fail`, with what it takes to find the connection in a proxy's log: its own port, and how long
 * after the start of the tool it happened.
 */
void fail_from(int socket, const char *what) __attribute__((noreturn));

/* A whole number of at least 1; fails otherwise. */
uint64_t parse_count(const char *text);

struct sockaddr_in parse_address(const char *ip, const char *port);

/* A listening socket on all addresses; says "listening" on stdout and dies with its parent. */
int serve_port(const char *port);

/* A connected, blocking socket without Nagle's delay; its calls fail after 10 s of silence. */
int connect_to(const struct sockaddr_in *address);

/* A socket without Nagle's delay that has begun to connect and never blocks. */
int begin_connect(const struct sockaddr_in *address);

void without_delay(int socket);

/* All of it, or -1. */
int write_all(int socket, const void *bytes, size_t length);
int read_all(int socket, void *bytes, size_t length);

/* As many descriptors as the kernel allows. */
void raise_file_limit(void);

/*
 * Called by a client at its start: ends it with an error after so many seconds, so that no load
 * outlives its bench.
 */
void limit_seconds(unsigned seconds);

/* One time per finished operation, kept whole so that percentiles are exact. */
struct samples {
  uint64_t *ns;
  size_t count;
  size_t capacity;
};

void note_sample(struct samples *samples, uint64_t ns);

/* Moves what `from` holds to `to`. */
void merge_samples(struct samples *to, struct samples *from);

/* Sorts, then prints one JSON line: count, seconds, and p50Us p99Us p999Us maxUs. */
void print_samples(struct samples *samples, uint64_t elapsed_ns);

/*
 * A fixed rate: the n-th operation is due at a time that no operation before it can move, and its
 * latency counts from then. What waits for its turn behind a slow one is not left out.
 */
struct pace {
  uint64_t start_ns;
  uint64_t end_ns;
  double interval_ns;
  uint64_t started;
};

/* When the next operation is due; UINT64_MAX when there is none any more. */
uint64_t next_due(const struct pace *pace);

/* A descriptor that gets readable at the set moments; for `arm_timer`. */
int make_timer(void);
void arm_timer(int timer, uint64_t at_ns);

/* Runs `run` in so many threads, each with its element of `jobs`, to their end. */
void run_threads(size_t count, void *(*run)(void *), void *jobs, size_t job_bytes);

/* Fills with the bytes that clients send and compare. */
void fill_message(unsigned char *bytes, size_t length);

#endif
