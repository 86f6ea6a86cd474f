// Sockets: taken or accepted, connected, read.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "reactor.h"

namespace ztunnel {
namespace {

// SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST, whose kernel headers clash with <netinet/in.h>.
constexpr int kOriginalDestination = 80;

// Where a redirected connection was going; nothing is written when nobody knows.
void AskOriginalDestination(int fd, uint8_t* into) {
  for (int level : {SOL_IP, SOL_IPV6}) {
    socklen_t length = kAddressBytes;
    if (getsockopt(fd, level, kOriginalDestination, into, &length) == 0) return;
  }
}

}  // namespace

void Reactor::Accept(Connection* listener) {
  const int32_t id = listener->id;
  for (size_t i = 0; i < sizes_.accepts_per_turn; ++i) {
    Reserve(2 * kAddressBytes);
    listener = Find(id);
    if (listener == nullptr || listener->Is(Connection::kPaused)) return;
    uint8_t* const addresses = arena_ + arena_used_;
    memset(addresses, 0, 2 * kAddressBytes);
    socklen_t length = kAddressBytes;
    // Without a place for it, a connection stays in the kernel's queue.
    int fd = -1;
    errno = EMFILE;
    if (HasRoom()) {
      fd = accept4(listener->fd, reinterpret_cast<sockaddr*>(addresses), &length,
                   SOCK_NONBLOCK | SOCK_CLOEXEC);
    }
    if (fd < 0 && errno == EAGAIN) {
      listener->ready = 0;
      return;
    }
    Connection* accepted = fd < 0 ? nullptr : Add(fd, 0);
    if (accepted == nullptr) {
      const int error = errno;
      if (fd >= 0) close(fd);
      listener->flags |= Connection::kPaused;
      Emit(kError, id, error);
      return;
    }
    if (listener->Is(Connection::kRedirected)) {
      AskOriginalDestination(fd, addresses + kAddressBytes);
    }
    Emit(kAccept, id, accepted->id, static_cast<int64_t>(arena_used_));
    Occupy(arena_used_ + 2 * kAddressBytes);
  }
  ReadSoon(listener);
}

void Reactor::AskSocket(Connection* connection) {
  int error = 0;
  socklen_t length = sizeof(error);
  if (getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
  if (error != 0 || !connection->Is(Connection::kConnecting)) {
    return Fail(connection, error == 0 ? ECONNRESET : error);
  }
  connection->Clear(Connection::kConnecting);
  if (connection->ssl == nullptr) {
    Emit(kOpen, connection->id);
  } else if (SSL_is_server(connection->ssl.get()) == 0) {
    Handshake(connection);
  }
  FinishEnding(connection);
}

// Of a plain connection into the arena, of a tunnel to where OpenSSL takes it from.
void Reactor::Read(Connection* connection) {
  const int32_t id = connection->id;
  const size_t most =
      std::min(std::max(sizes_.plain_read_bytes, sizes_.cipher_read_bytes), read_bytes_max_);
  // All that can come out: this read, and of a tunnel a record of which all but the end came earlier.
  Reserve(most + kRecordBytes);
  connection = Find(id);
  if (connection == nullptr || !WantsRead(*connection)) return;
  const bool is_tunnel = connection->ssl != nullptr;
  const size_t offset = arena_used_ + kHeadroomBytes;
  const auto credit = static_cast<size_t>(credit_[connection->Slot()]);
  const size_t allowed =
      is_tunnel ? sizes_.cipher_read_bytes : std::min(sizes_.plain_read_bytes, credit);
  const size_t asked = std::min(allowed, most);
  const ssize_t count = recv(connection->fd, is_tunnel ? received_.get() : arena_ + offset, asked,
                             MSG_DONTWAIT);
  if (count < 0 && errno != EAGAIN) return Fail(connection, errno);
  if (count == 0) {
    connection->flags |= Connection::kAtEnd;
    return Emit(kEof, id);
  }
  if (count < 0 || (static_cast<size_t>(count) < asked && (connection->ready & kBehind) == 0)) {
    connection->ready &= ~kReadable;
  }
  if (count < 0) return;
  connection->is_long = count >= kLongReadBytes;
  ReadSoon(connection);
  if (is_tunnel) return ReceiveCipher(connection, static_cast<size_t>(count));
  Emit(kData, id, static_cast<int64_t>(offset), count);
  Occupy(offset + static_cast<size_t>(count));
}

}  // namespace ztunnel
