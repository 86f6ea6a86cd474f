/*
 * Holds connections open on which nothing moves.
 *
 *   idle CONNECTIONS IP PORT
 *
 * Each carries one byte there and back, then "open" is printed; when stdin ends each must carry one
 * more.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tool.h"

#define SECONDS_MAX 120

static void carry_byte(int peer) {
  char byte = 'x';
  if (write_all(peer, &byte, 1) != 0 || read_all(peer, &byte, 1) != 0) {
    fail_from(peer, "carry a byte");
  }
  errno = 0;
  if (byte != 'x') fail_from(peer, "another byte came back than was sent");
}

int main(int argc, char **argv) {
  if (argc != 4) fail("usage: see the head of idle.c");
  limit_seconds(SECONDS_MAX);
  raise_file_limit();
  size_t count = parse_count(argv[1]);
  struct sockaddr_in address = parse_address(argv[2], argv[3]);
  int *peers = calloc(count, sizeof *peers);
  if (peers == NULL) fail("no memory");
  for (size_t i = 0; i < count; i++) {
    peers[i] = connect_to(&address);
    carry_byte(peers[i]);
  }
  puts("open");
  fflush(stdout);
  char ignored;
  while (read(STDIN_FILENO, &ignored, 1) > 0) continue;
  for (size_t i = 0; i < count; i++) carry_byte(peers[i]);
  printf("{\"count\":%zu}\n", count);
  return 0;
}
