// Sockets: taken or accepted, connected, read.
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
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

int32_t Reactor::Take(int fd, unsigned kind, int failure) {
  if (!HasRoom()) errno = EMFILE;
  const int status = HasRoom() ? fcntl(fd, F_GETFL) : -1;
  if (status < 0) return 0;
  if ((status & O_NONBLOCK) == 0 && fcntl(fd, F_SETFL, status | O_NONBLOCK) != 0) return 0;
  // A peer on this machine has answered within connect().
  const bool connecting = (kind & Connection::kConnecting) != 0;
  pollfd answer = {fd, POLLOUT, 0};
  const bool answered =
      connecting && failure == 0 && poll(&answer, 1, 0) == 1 && answer.revents == POLLOUT;
  Connection* connection = Add(fd, kind);
  if (connection == nullptr) return 0;
  // Now, not when it is first read: it tells whether the descriptor is a socket, and ours only once.
  const EPOLL_EVENTS first = connecting && !answered ? EPOLLOUT : EPOLLIN;
  if (!Watch(connection, kind == 0 ? 0 : static_cast<uint32_t>(first))) {
    const int error = errno;
    Forget(connection);
    errno = error;
    return 0;
  }
  const int32_t id = connection->id;
  if (failure != 0) Fail(connection, failure);
  if (answered) {
    connection->flags |= Connection::kAnswered;
    Add(kUntold, connection->Slot());
  }
  return id;
}

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
    if (fd < 0 && errno == EAGAIN) return;
    Connection* accepted = fd < 0 ? nullptr : Add(fd, 0);
    if (accepted == nullptr) {
      const int error = errno;
      if (fd >= 0) close(fd);
      // Level-triggered, it would be told without end.
      listener->flags |= Connection::kPaused;
      UpdateInterest(listener);
      Emit(kError, id, error);
      return;
    }
    if (listener->Is(Connection::kRedirected)) {
      AskOriginalDestination(fd, addresses + kAddressBytes);
    }
    Emit(kAccept, id, accepted->id, static_cast<int64_t>(arena_used_));
    Occupy(arena_used_ + 2 * kAddressBytes);
  }
}

void Reactor::AskSocket(Connection* connection) {
  // Told at the end of this batch.
  if (connection->Is(Connection::kAnswered)) return;
  int error = 0;
  socklen_t length = sizeof(error);
  if (getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
  if (error == 0 && connection->Is(Connection::kConnecting)) return Open(connection);
  Fail(connection, error == 0 ? ECONNRESET : error);
}

void Reactor::Open(Connection* connection) {
  connection->Clear(Connection::kConnecting);
  if (connection->ssl == nullptr) {
    Emit(kOpen, connection->id);
  } else if (SSL_is_server(connection->ssl.get()) == 0) {
    Handshake(connection);
  }
  FinishEnding(connection);
  Add(kUnsettled, connection->Slot());
}

size_t Reactor::ReadBytes(const Connection& connection) const {
  if (connection.ssl != nullptr) return std::min(sizes_.cipher_read_bytes, read_bytes_max_);
  return std::min({sizes_.plain_read_bytes, read_bytes_max_,
                   static_cast<size_t>(credit_[connection.Slot()])});
}

// Of a plain connection into the arena, of a tunnel to where OpenSSL takes it from.
void Reactor::Read(Connection* connection) {
  const int32_t id = connection->id;
  const size_t reserved = ReadBytes(*connection);
  // All that can come out: this read, and of a tunnel a record of which all but the end came earlier.
  Reserve(reserved + kRecordBytes);
  connection = Find(id);
  if (connection == nullptr || !WantsRead(*connection)) return;
  const bool is_tunnel = connection->ssl != nullptr;
  const size_t offset = arena_used_ + kHeadroomBytes;
  const ssize_t count = recv(connection->fd, is_tunnel ? received_.get() : arena_ + offset,
                             std::min(reserved, ReadBytes(*connection)), MSG_DONTWAIT);
  if (count > 0) {
    connection->is_bulk = count >= kBulkReadBytes;
    if (is_tunnel) return ReceiveCipher(connection, static_cast<size_t>(count));
    Emit(kData, id, static_cast<int64_t>(offset), count);
    Occupy(offset + static_cast<size_t>(count));
  } else if (count == 0) {
    connection->flags |= Connection::kAtEnd;
    Emit(kEof, id);
  } else if (errno != EAGAIN && errno != EINTR) {
    Fail(connection, errno);
  }
}

}  // namespace ztunnel
