/*
 * Sends back what it gets, on any number of connections in one thread; made for callers with few
 * bytes under way.
 *
 *   echo-server PORT
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tool.h"

#define EVENTS_MAX 256

static void watch(int epoll, int fd) {
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) fail("epoll");
}

static void echo(int peer) {
  static char buffer[64 * 1024];
  ssize_t count = recv(peer, buffer, sizeof buffer, MSG_DONTWAIT);
  if (count < 0 && errno == EAGAIN) return;
  if (count <= 0 || write_all(peer, buffer, (size_t)count) != 0) close(peer);
}

int main(int argc, char **argv) {
  if (argc != 2) fail("usage: echo-server PORT");
  raise_file_limit();
  int listener = serve_port(argv[1]);
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  watch(epoll, listener);
  struct epoll_event events[EVENTS_MAX];
  for (;;) {
    int count = epoll_wait(epoll, events, EVENTS_MAX, -1);
    for (int i = 0; i < count; i++) {
      if (events[i].data.fd != listener) {
        echo(events[i].data.fd);
        continue;
      }
      int peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
      if (peer < 0) continue;
      without_delay(peer);
      watch(epoll, peer);
    }
  }
}
