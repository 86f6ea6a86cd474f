#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <vector>

#include "functions.h"
#include "napi_support.h"

namespace ztunnel {
namespace {

// One is expected; the second shows that there were more.
constexpr size_t kReceivedFdsMax = 2;
// Longest packet that can be asked for; the kernel's own limit for Unix sockets is about 200 KiB.
constexpr int64_t kPacketBytesMax = 1 << 20;

// Makes a socket and hands it with the address to `use`, which is connect() or bind().
UniqueFd SeqpacketAt(napi_env env, napi_value path_value, const char* syscall,
                     int (*use)(int, const sockaddr*, socklen_t)) {
  std::optional<std::string> path = RequireText(env, path_value, "path");
  if (!path) return UniqueFd();
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path->empty() || path->size() >= sizeof(address.sun_path)) {
    ThrowErrno(env, path->empty() ? ENOENT : ENAMETOOLONG, syscall, *path);
    return UniqueFd();
  }
  memcpy(address.sun_path, path->data(), path->size());
  UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.IsOpen()) {
    ThrowErrno(env, errno, "socket");
  } else if (use(fd.Get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    ThrowErrno(env, errno, syscall, *path);
    return UniqueFd();
  }
  return fd;
}

// Takes over the descriptors that came with the message.
std::vector<UniqueFd> TakeFds(msghdr* message) {
  std::vector<UniqueFd> fds;
  for (cmsghdr* header = CMSG_FIRSTHDR(message); header != nullptr;
       header = CMSG_NXTHDR(message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
      int fd = -1;
      memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
      fds.emplace_back(fd);
    }
  }
  return fds;
}

}  // namespace

napi_value ConnectSeqpacket(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  UniqueFd fd = SeqpacketAt(env, arguments.values[0], "connect", connect);
  return fd.IsOpen() ? FromFd(env, std::move(fd)) : nullptr;
}

napi_value ListenSeqpacket(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  std::optional<int64_t> backlog = ReadInteger(env, arguments.values[1], "backlog", INT_MAX);
  if (!backlog) return ThrowType(env, "backlog", "an integer");
  UniqueFd fd = SeqpacketAt(env, arguments.values[0], "bind", bind);
  if (!fd.IsOpen()) return nullptr;
  if (listen(fd.Get(), static_cast<int>(*backlog)) != 0) return ThrowErrno(env, errno, "listen");
  return FromFd(env, std::move(fd));
}

napi_value AcceptSeqpacket(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  std::optional<int> listener = RequireFd(env, arguments.values[0], "listenFd");
  if (!listener) return nullptr;
  UniqueFd fd(accept4(*listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!fd.IsOpen()) return errno == EAGAIN ? nullptr : ThrowErrno(env, errno, "accept4");
  return FromFd(env, std::move(fd));
}

napi_value ReceivePacket(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  std::optional<int> fd = RequireFd(env, arguments.values[0], "fd");
  if (!fd) return nullptr;
  auto bytes_max = ReadInteger(env, arguments.values[1], "bytesMax", kPacketBytesMax);
  if (!bytes_max) return ThrowType(env, "bytesMax", "an integer");

  std::vector<uint8_t> bytes(static_cast<size_t>(*bytes_max));
  alignas(cmsghdr) char control[CMSG_SPACE(kReceivedFdsMax * sizeof(int))] = {};
  iovec part = {bytes.data(), bytes.size()};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t length = recvmsg(*fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (length < 0) return errno == EAGAIN ? nullptr : ThrowErrno(env, errno, "recvmsg");
  std::vector<UniqueFd> fds = TakeFds(&message);

  napi_value result = nullptr, data = nullptr, fd_array = nullptr, truncated = nullptr;
  napi_create_object(env, &result);
  napi_create_buffer_copy(env, static_cast<size_t>(length), bytes.data(), nullptr, &data);
  napi_get_boolean(env, (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0, &truncated);
  napi_create_array(env, &fd_array);
  for (size_t i = 0; i < fds.size(); i++) {
    napi_set_element(env, fd_array, static_cast<uint32_t>(i), FromFd(env, std::move(fds[i])));
  }
  SetProperty(env, result, "data", data);
  SetProperty(env, result, "fds", fd_array);
  SetProperty(env, result, "truncated", truncated);
  return result;
}

napi_value SendPacket(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  std::optional<int> fd = RequireFd(env, arguments.values[0], "fd");
  if (!fd) return nullptr;
  napi_typedarray_type type = napi_int8_array;
  iovec part = {};
  if (napi_get_typedarray_info(env, arguments.values[1], &type, &part.iov_len, &part.iov_base,
                               nullptr, nullptr) != napi_ok ||
      type != napi_uint8_array) {
    return ThrowType(env, "data", "a Uint8Array");
  }
  if (arguments.count > kArgumentsMax) return ThrowType(env, "passFds", "at most 4 descriptors");
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(kSentFdsMax * sizeof(int))] = {};
  size_t fd_count = 0;
  auto* header = reinterpret_cast<cmsghdr*>(control);
  for (size_t i = 2; i < arguments.count && i < kArgumentsMax; i++) {
    std::optional<int> passed = RequireFd(env, arguments.values[i], "passFds");
    if (!passed) return nullptr;
    memcpy(CMSG_DATA(header) + fd_count++ * sizeof(int), &*passed, sizeof(int));
  }
  if (fd_count > 0) {
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
  }
  if (sendmsg(*fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) ThrowErrno(env, errno, "sendmsg");
  return nullptr;
}

}  // namespace ztunnel
