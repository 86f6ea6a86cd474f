// Questions about sockets that no Node object owns.
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <climits>

#include "address.h"
#include "functions.h"

namespace ztunnel {
namespace {

// The kernel cuts off what is longer.
constexpr size_t kOptionBytesMax = 512;
// SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST, whose kernel headers clash with <netinet/in.h>.
constexpr int kOriginalDestination = 80;

napi_value AddressBy(napi_env env, napi_callback_info info, const char* syscall,
                     int (*ask)(int, sockaddr*, socklen_t*)) {
  Arguments arguments(env, info);
  std::optional<int> fd = RequireFd(env, arguments.values[0], "fd");
  if (!fd) return nullptr;
  Address address;
  if (ask(*fd, address.Raw(), &address.length) != 0) return ThrowErrno(env, errno, syscall);
  return FromAddress(env, address);
}

}  // namespace

napi_value Accept(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  std::optional<int> listener = RequireFd(env, arguments.values[0], "listenFd");
  if (!listener) return nullptr;
  UniqueFd fd;
  do {
    fd = UniqueFd(accept4(*listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    // A connection that left while it waited is none.
  } while (!fd.IsOpen() && (errno == EINTR || errno == ECONNABORTED));
  if (!fd.IsOpen()) return errno == EAGAIN ? nullptr : ThrowErrno(env, errno, "accept4");
  return FromFd(env, std::move(fd));
}

napi_value Connect(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  std::optional<int> fd = RequireFd(env, arguments.values[0], "fd");
  std::optional<Address> to =
      RequireAddress(env, arguments.values[1], arguments.values[2], "");
  if (!fd || !to) return nullptr;
  if (connect(*fd, to->Raw(), to->length) != 0 && errno != EINPROGRESS) {
    return ThrowErrno(env, errno, "connect");
  }
  return nullptr;
}

napi_value SocketPair(napi_env env, napi_callback_info) {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0) {
    return ThrowErrno(env, errno, "socketpair");
  }
  napi_value result = nullptr;
  napi_create_array(env, &result);
  for (uint32_t i = 0; i < 2; ++i) napi_set_element(env, result, i, FromFd(env, UniqueFd(fds[i])));
  return result;
}

napi_value OriginalDestination(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  std::optional<int> fd = RequireFd(env, arguments.values[0], "fd");
  if (!fd) return nullptr;
  for (int level : {SOL_IP, SOL_IPV6}) {
    Address original;
    if (getsockopt(*fd, level, kOriginalDestination, &original.storage, &original.length) == 0) {
      return FromAddress(env, original);
    }
  }
  return errno == EBADF || errno == ENOTSOCK ? ThrowErrno(env, errno, "getsockopt") : nullptr;
}

napi_value SocketOption(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  std::optional<int> fd = RequireFd(env, arguments.values[0], "fd");
  auto level = RequireInteger(env, arguments.values[1], "level", INT_MAX);
  auto name = RequireInteger(env, arguments.values[2], "name", INT_MAX);
  if (!fd || !level || !name) return nullptr;
  char value[kOptionBytesMax];
  socklen_t length = sizeof(value);
  if (getsockopt(*fd, static_cast<int>(*level), static_cast<int>(*name), value, &length) != 0) {
    return ThrowErrno(env, errno, "getsockopt");
  }
  napi_value result = nullptr;
  napi_create_buffer_copy(env, length, value, nullptr, &result);
  return result;
}

napi_value LocalAddress(napi_env env, napi_callback_info info) {
  return AddressBy(env, info, "getsockname", getsockname);
}

napi_value PeerAddress(napi_env env, napi_callback_info info) {
  return AddressBy(env, info, "getpeername", getpeername);
}

}  // namespace ztunnel
