// Plain TCP: accept, connect, read, write.
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "reactor.h"

namespace ztunnel {
namespace {

// Pieces of one sendmsg().
constexpr size_t kPiecesMax = 64;

// The connection that waited is gone or broken; the next one may be fine (accept(2)).
bool IsOfOneConnection(int error) {
  constexpr int kErrors[] = {EINTR,     ECONNABORTED, ENETDOWN,     EPROTO,     ENOPROTOOPT,
                             EHOSTDOWN, ENONET,       EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH};
  return std::find(std::begin(kErrors), std::end(kErrors), error) != std::end(kErrors);
}

bool BecomeNonBlocking(int fd) {
  const int status = fcntl(fd, F_GETFL);
  return status >= 0 && ((status & O_NONBLOCK) != 0 || fcntl(fd, F_SETFL, status | O_NONBLOCK) == 0);
}

// Length of the IP (0: unknown), a free byte, the port in network order, the IP; mapped ones as IPv4.
void WriteAddress(uint8_t* into, const Address& address) {
  const auto* v4 = reinterpret_cast<const sockaddr_in*>(&address.storage);
  const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address.storage);
  const bool is_v6 = address.storage.ss_family == AF_INET6;
  const bool is_long = is_v6 && !IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr);
  into[0] = is_long ? 16 : address.storage.ss_family == AF_UNSPEC ? 0 : 4;
  memcpy(into + 2, &v4->sin_port, sizeof(v4->sin_port));
  const void* bytes = is_v6 ? v6->sin6_addr.s6_addr + (is_long ? 0 : 12)
                            : reinterpret_cast<const uint8_t*>(&v4->sin_addr);
  memcpy(into + 4, bytes, into[0]);
}

}  // namespace

void Reactor::Accept(Connection* listener) {
  const int32_t id = listener->id;
  for (size_t i = 0; i < sizes_.accepts_per_turn; ++i) {
    Reserve(2 * kAddressBytes);
    listener = Find(id);
    if (listener == nullptr || listener->Is(Connection::kPaused)) return;
    // Without a place for it, a connection stays in the kernel's queue.
    int fd = -1;
    errno = EMFILE;
    Address peer, original;
    if (HasRoom()) fd = accept4(listener->fd, peer.Raw(), &peer.length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && errno == EAGAIN) return;
    if (fd < 0 && IsOfOneConnection(errno)) continue;
    Connection* accepted = fd < 0 ? nullptr : Add(fd, 0);
    if (accepted == nullptr) {
      int error = errno;
      if (fd >= 0) close(fd);
      // Level-triggered, it would be told without end.
      listener->flags |= Connection::kPaused;
      listener->failure = error;
      UpdateInterest(listener);
      Emit(kError, id, error);
      return;
    }
    if (listener->Is(Connection::kRedirected)) AskOriginalDestination(fd, &original);
    WriteAddress(arena_ + arena_used_, peer);
    WriteAddress(arena_ + arena_used_ + kAddressBytes, original);
    Emit(kAccept, id, accepted->id, static_cast<int64_t>(arena_used_));
    Occupy(arena_used_ + 2 * kAddressBytes);
  }
}

int32_t Reactor::Listen(int fd, bool redirected) {
  constexpr unsigned kFlags = Connection::kListener;
  if (!BecomeNonBlocking(fd)) return 0;
  return Take(fd, redirected ? kFlags | Connection::kRedirected : kFlags, EPOLLIN);
}

int32_t Reactor::Connect(int fd, const Address& address) {
  const auto* raw = reinterpret_cast<const sockaddr*>(&address.storage);
  if (!HasRoom()) errno = EMFILE;
  if (!HasRoom() || !BecomeNonBlocking(fd)) return 0;
  const bool refused =
      connect(fd, raw, address.length) != 0 && errno != EINPROGRESS && errno != EINTR;
  const int error = errno;
  // A peer on this machine has answered within connect().
  pollfd answer = {fd, POLLOUT, 0};
  const bool answered = !refused && poll(&answer, 1, 0) == 1 && answer.revents == POLLOUT;
  const int32_t id = Take(fd, Connection::kConnecting, answered ? EPOLLIN : EPOLLOUT);
  Connection* connection = Find(id);
  if (connection == nullptr) return 0;
  if (refused) Fail(connection, error);
  if (answered) {
    TellSoon(connection);
    connection->flags |= Connection::kAnswered;
  }
  return id;
}

bool Reactor::Pair(int32_t (&ids)[2]) {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0) return false;
  UniqueFd first(fds[0]), second(fds[1]);
  ids[0] = Take(first.Get(), 0, 0);
  if (ids[0] == 0) return false;
  first.Release();
  ids[1] = Take(second.Get(), 0, 0);
  if (ids[1] == 0) {
    const int error = errno;
    Close(Find(ids[0]));
    errno = error;
    return false;
  }
  second.Release();
  return true;
}

void Reactor::FinishConnect(Connection* connection) {
  // Told at the end of this batch.
  if (connection->Is(Connection::kAnswered)) return;
  int error = 0;
  socklen_t length = sizeof(error);
  if (getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
  if (error != 0) return Fail(connection, error);
  Open(connection);
}

void Reactor::Open(Connection* connection) {
  connection->flags &= static_cast<uint16_t>(~Connection::kConnecting);
  if (connection->ssl == nullptr) {
    Emit(kOpen, connection->id);
  } else if (!connection->Is(Connection::kServer)) {
    Handshake(connection);
    FlushTunnel(connection);
  }
  FinishEnding(connection);
  SettleLater(connection);
}

void Reactor::ReadPlain(Connection* connection) {
  const int32_t id = connection->id;
  const int32_t* credit = credit_ + (id & 0xffff);
  const size_t most = std::min(sizes_.plain_read_bytes, read_bytes_max_);
  Reserve(kHeadroomBytes + std::min(static_cast<size_t>(*credit), most));
  connection = Find(id);
  if (connection == nullptr || !WantsRead(*connection)) return;
  // A turn in between may have raised it beyond what is reserved.
  const size_t offset = arena_used_ + kHeadroomBytes;
  const size_t wanted =
      std::min({static_cast<size_t>(*credit), most, sizes_.arena_bytes - offset});
  ssize_t count = recv(connection->fd, arena_ + offset, wanted, MSG_DONTWAIT);
  if (count > 0) {
    connection->is_bulk = count >= kBulkReadBytes;
    Emit(kData, id, static_cast<int64_t>(offset), count);
    Occupy(offset + static_cast<size_t>(count));
  } else if (count == 0) {
    connection->flags |= Connection::kAtEnd;
    Emit(kEof, id);
  } else if (errno != EAGAIN && errno != EINTR) {
    Fail(connection, errno);
  }
}

// Performs the WRITEs to this connection that follow each other from `first` on; answers the index
// of the operation behind them.
uint32_t Reactor::WritePlain(Connection* connection, uint32_t first, uint32_t operation_count) {
  iovec pieces[kPiecesMax];
  size_t piece_count = 0, total = 0;
  bool takes = !connection->Is(Connection::kListener | Connection::kEnding | Connection::kFailed);
  uint32_t index = first;
  for (; index < operation_count && piece_count < kPiecesMax; ++index) {
    const int32_t* operation = operations_ + 4 * index;
    const int32_t offset = operation[2], length = operation[3];
    if (operation[0] != kWrite || operation[1] != connection->id) break;
    if (!takes || !InArena(offset, length)) {
      ++pending_[0];
      continue;
    }
    pieces[piece_count++] = {arena_ + offset, static_cast<size_t>(length)};
    total += static_cast<size_t>(length);
  }
  if (total == 0) return index;
  Send(connection, pieces, piece_count);
  UpdateInterest(connection);
  return index;
}

}  // namespace ztunnel
