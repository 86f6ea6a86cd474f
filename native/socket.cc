// Sockets, and files, opened inside a namespace; what the kernel is told and asked about sockets.
#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "functions.h"

namespace ztunnel {
namespace {

// Beyond every errno: added to that of a namespace which can't be entered.
constexpr int kNotEntered = 4096;
// From birth.
constexpr int kQuiet = SOCK_NONBLOCK | SOCK_CLOEXEC;

// What `make` opens in the namespace, if one is given.
template <typename Make>
int InNamespace(napi_env env, int netns, Make make) {
  if (netns >= 0 && setns(netns, CLONE_NEWNET) != 0) return FailWith(errno + kNotEntered);
  const int fd = make();
  const int error = errno;
  // A thread that can't return must not run JavaScript.
  if (netns >= 0 && setns(EnvironmentOf(env)->home.Get(), CLONE_NEWNET) != 0) {
    fprintf(stderr, "ztunnel: can't return to the home network namespace: %s\n", strerror(errno));
    abort();
  }
  errno = error;
  return fd;
}

const sockaddr* ToAddress(Bytes bytes) { return reinterpret_cast<const sockaddr*>(bytes.data); }

// `ask` is getsockname() or getpeername().
int Name(int fd, Bytes into, int (*ask)(int, sockaddr*, socklen_t*)) {
  auto length = static_cast<socklen_t>(into.length);
  const int failed = ask(fd, reinterpret_cast<sockaddr*>(into.data), &length);
  return failed != 0 ? -1 : static_cast<int>(length);
}

}  // namespace

int SocketIn(napi_env env, int netns, int family, int type, int protocol) {
  return InNamespace(env, netns, [=] { return socket(family, type | kQuiet, protocol); });
}

int OpenIn(napi_env env, int netns, Bytes path) {
  if (path.length == 0 || path.data[path.length - 1] != 0) return FailWith(EINVAL);
  const char* text = reinterpret_cast<const char*>(path.data);
  return InNamespace(env, netns, [=] { return open(text, O_RDONLY | O_CLOEXEC); });
}

int SocketPair(Bytes fds) {
  int made[2];
  if (fds.length != sizeof(made)) return FailWith(EINVAL);
  if (socketpair(AF_UNIX, SOCK_STREAM | kQuiet, 0, made) != 0) return -1;
  memcpy(fds.data, made, sizeof(made));
  return 0;
}

// Of level, name and value each; those before one that the kernel refuses are set.
int SetOptions(int fd, Bytes options) {
  int option[3];
  for (size_t at = 0; at + sizeof(option) <= options.length; at += sizeof(option)) {
    memcpy(option, options.data + at, sizeof(option));
    const auto [level, name, value] = option;
    if (setsockopt(fd, level, name, &value, sizeof(value)) != 0) return -1;
  }
  return 0;
}

int Option(int fd, int level, int name, Bytes into) {
  auto length = static_cast<socklen_t>(into.length);
  return getsockopt(fd, level, name, into.data, &length) != 0 ? -1 : static_cast<int>(length);
}

int Bind(int fd, Bytes address) {
  return bind(fd, ToAddress(address), static_cast<socklen_t>(address.length));
}

int Connect(int fd, Bytes address) {
  return connect(fd, ToAddress(address), static_cast<socklen_t>(address.length));
}

int Accept(int fd) { return accept4(fd, nullptr, nullptr, kQuiet); }

int SocketName(int fd, Bytes into) { return Name(fd, into, getsockname); }

int PeerName(int fd, Bytes into) { return Name(fd, into, getpeername); }

}  // namespace ztunnel
