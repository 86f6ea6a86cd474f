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

/* Ends the client with an error after so many seconds, so that no load outlives its bench. */
void limit_seconds(unsigned seconds);

/* One time per finished operation, kept whole so that percentiles are exact. */
struct samples {
  uint32_t *ns;
  size_t count;
  size_t capacity;
};

void note_sample(struct samples *samples, uint64_t ns);

/* Sorts, then prints one JSON line: count, seconds, and p50Us p99Us p999Us maxUs. */
void print_samples(struct samples *samples, uint64_t elapsed_ns);

/* Fills with the bytes that clients send and compare. */
void fill_message(unsigned char *bytes, size_t length);

#endif
