// Packets with descriptors, as ZDS speaks them.
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
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
constexpr size_t kSentFdsMax = kArgumentsMax - 2;
// Longest packet that can be asked for; the kernel's own limit for Unix sockets is about 200 KiB.
constexpr int64_t kPacketBytesMax = 1 << 20;

// A message of one piece, with room for descriptors.
template <size_t kFdsMax>
struct Packet {
  Packet(void* bytes, size_t length) : part{bytes, length} {
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
  }

  iovec part;
  alignas(cmsghdr) char control[CMSG_SPACE(kFdsMax * sizeof(int))] = {};
  msghdr message = {};
};

// Makes a socket and hands it with the address to `use`, which is connect() or bind().
UniqueFd SeqpacketAt(napi_env env, napi_value path_value, const char* syscall,
                     int (*use)(int, const sockaddr*, socklen_t)) {
  std::optional<std::string> path = RequireText(env, path_value, "path");
  if (!path) return UniqueFd();
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  memcpy(address.sun_path, path->data(), std::min(path->size(), sizeof(address.sun_path)));
  if (path->empty() || path->size() >= sizeof(address.sun_path)) {
    ThrowErrno(env, path->empty() ? ENOENT : ENAMETOOLONG, syscall, *path);
  } else if (!fd.IsOpen() ||
             use(fd.Get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    ThrowErrno(env, errno, syscall, *path);
  } else {
    return fd;
  }
  return UniqueFd();
}

}  // namespace

napi_value ConnectSeqpacket(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  UniqueFd fd = SeqpacketAt(env, arguments.values[0], "connect", connect);
  return fd.IsOpen() ? FromFd(env, std::move(fd)) : nullptr;
}

napi_value ListenSeqpacket(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  std::optional<int64_t> backlog = RequireInteger(env, arguments.values[1], "backlog", INT_MAX);
  if (!backlog) return nullptr;
  UniqueFd fd = SeqpacketAt(env, arguments.values[0], "bind", bind);
  if (!fd.IsOpen()) return nullptr;
  if (listen(fd.Get(), static_cast<int>(*backlog)) != 0) return ThrowErrno(env, errno, "listen");
  return FromFd(env, std::move(fd));
}

napi_value ReceivePacket(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  std::optional<int> fd = RequireFd(env, arguments.values[0], "fd");
  auto bytes_max = RequireInteger(env, arguments.values[1], "bytesMax", kPacketBytesMax);
  if (!fd || !bytes_max) return nullptr;
  std::vector<uint8_t> bytes(static_cast<size_t>(*bytes_max));
  Packet<kReceivedFdsMax> packet(bytes.data(), bytes.size());
  ssize_t length = recvmsg(*fd, &packet.message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (length < 0) return errno == EAGAIN ? nullptr : ThrowErrno(env, errno, "recvmsg");

  napi_value data = nullptr, fds = nullptr;
  napi_create_buffer_copy(env, static_cast<size_t>(length), bytes.data(), nullptr, &data);
  napi_create_array(env, &fds);
  // The kernel puts all descriptors of a packet into one header.
  const cmsghdr* header = CMSG_FIRSTHDR(&packet.message);
  if (header != nullptr && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
    for (uint32_t i = 0; CMSG_LEN((i + 1) * sizeof(int)) <= header->cmsg_len; i++) {
      int received = -1;
      memcpy(&received, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
      napi_set_element(env, fds, i, FromFd(env, UniqueFd(received)));
    }
  }
  napi_value result = NewObject(env);
  SetProperty(env, result, "data", data);
  SetProperty(env, result, "fds", fds);
  const bool truncated = (packet.message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
  SetProperty(env, result, "truncated", FromFlag(env, truncated));
  return result;
}

napi_value SendPacket(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  std::optional<int> fd = RequireFd(env, arguments.values[0], "fd");
  std::optional<Bytes> data = RequireBytes(env, arguments.values[1], "data");
  if (!fd || !data) return nullptr;
  if (arguments.count > kArgumentsMax) return ThrowType(env, "passFds", "at most 4 descriptors");
  Packet<kSentFdsMax> packet(data->data, data->length);
  auto* header = reinterpret_cast<cmsghdr*>(packet.control);
  *header = {CMSG_LEN(0), SOL_SOCKET, SCM_RIGHTS};
  for (size_t i = 2; i < arguments.count; i++) {
    std::optional<int> passed = RequireFd(env, arguments.values[i], "passFds");
    if (!passed) return nullptr;
    memcpy(packet.control + header->cmsg_len, &*passed, sizeof(int));
    header->cmsg_len += sizeof(int);
  }
  packet.message.msg_controllen = header->cmsg_len == CMSG_LEN(0) ? 0 : header->cmsg_len;
  if (sendmsg(*fd, &packet.message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
    ThrowErrno(env, errno, "sendmsg");
  }
  return nullptr;
}

}  // namespace ztunnel
