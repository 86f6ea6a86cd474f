// Whole packets with the descriptors that ride on them.
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "functions.h"

namespace ztunnel {
namespace {

constexpr size_t kFdsMax = 4;

// What a packet came with, as JavaScript reads it.
struct Extras {
  int flags;
  // One is expected; the second shows that there were more. -1 for none.
  int fds[2];
};

// A message of one piece, with room for descriptors.
struct Packet {
  Packet(Bytes bytes, size_t fds_bytes) : part{bytes.data, bytes.length} {
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = fds_bytes == 0 ? 0 : CMSG_LEN(fds_bytes);
  }

  iovec part;
  alignas(cmsghdr) char control[CMSG_SPACE(kFdsMax * sizeof(int))] = {};
  msghdr message = {};
};

}  // namespace

int SendPacket(int fd, Bytes data, Bytes fds) {
  if (fds.length > kFdsMax * sizeof(int)) return FailWith(EINVAL);
  Packet packet(data, fds.length);
  auto* header = reinterpret_cast<cmsghdr*>(packet.control);
  *header = {CMSG_LEN(fds.length), SOL_SOCKET, SCM_RIGHTS};
  if (fds.length > 0) memcpy(CMSG_DATA(header), fds.data, fds.length);
  return static_cast<int>(sendmsg(fd, &packet.message, MSG_NOSIGNAL | MSG_DONTWAIT));
}

int ReceivePacket(int fd, Bytes into, Bytes extras) {
  Extras found = {0, {-1, -1}};
  if (extras.length != sizeof(found)) return FailWith(EINVAL);
  Packet packet(into, sizeof(found.fds));
  const ssize_t length = recvmsg(fd, &packet.message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (length < 0) return -1;
  found.flags = packet.message.msg_flags;
  // The kernel puts all descriptors of a packet into one header.
  const cmsghdr* header = CMSG_FIRSTHDR(&packet.message);
  if (header != nullptr && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
    memcpy(found.fds, CMSG_DATA(header), header->cmsg_len - CMSG_LEN(0));
  }
  memcpy(extras.data, &found, sizeof(found));
  return static_cast<int>(length);
}

}  // namespace ztunnel
