#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>

#include "address.h"
#include "functions.h"

namespace ztunnel {
namespace {

// SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST, whose kernel headers clash with <netinet/in.h>.
constexpr int kOriginalDestination = 80;

napi_value LocalAddressOf(napi_env env, int fd) {
  Address local;
  if (getsockname(fd, local.Raw(), &local.length) != 0) {
    return ThrowErrno(env, errno, "getsockname");
  }
  return FromAddress(env, local);
}

napi_value PeerAddressOf(napi_env env, int fd) {
  Address peer;
  if (getpeername(fd, peer.Raw(), &peer.length) != 0) return ThrowErrno(env, errno, "getpeername");
  return FromAddress(env, peer);
}

}  // namespace

napi_value AcceptConnection(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  std::optional<int> listener = RequireFd(env, arguments.values[0], "listenFd");
  if (!listener) return nullptr;

  Address peer;
  UniqueFd fd;
  do {
    peer.length = sizeof(peer.storage);
    fd = UniqueFd(accept4(*listener, peer.Raw(), &peer.length, SOCK_NONBLOCK | SOCK_CLOEXEC));
    // A connection that left while it waited is none.
  } while (!fd.IsOpen() && (errno == EINTR || errno == ECONNABORTED));
  if (!fd.IsOpen()) return errno == EAGAIN ? nullptr : ThrowErrno(env, errno, "accept4");

  napi_value peer_value = FromAddress(env, peer);
  napi_value local_value = peer_value == nullptr ? nullptr : LocalAddressOf(env, fd.Get());
  if (local_value == nullptr) return nullptr;
  napi_value result = nullptr;
  napi_create_object(env, &result);
  SetProperty(env, result, "peer", peer_value);
  SetProperty(env, result, "local", local_value);
  SetProperty(env, result, "fd", FromFd(env, std::move(fd)));
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
    if (errno == EBADF || errno == ENOTSOCK) return ThrowErrno(env, errno, "getsockopt");
  }
  return nullptr;
}

napi_value LocalAddress(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  std::optional<int> fd = RequireFd(env, arguments.values[0], "fd");
  return fd ? LocalAddressOf(env, *fd) : nullptr;
}

napi_value PeerAddress(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  std::optional<int> fd = RequireFd(env, arguments.values[0], "fd");
  return fd ? PeerAddressOf(env, *fd) : nullptr;
}

}  // namespace ztunnel
