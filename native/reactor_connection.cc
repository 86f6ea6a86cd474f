// The table of connections, and what plain ones and tunnels have in common.
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <new>

#include "reactor.h"

namespace ztunnel {

constexpr int kSendFlags = MSG_NOSIGNAL | MSG_DONTWAIT;

Connection* Reactor::Find(int32_t id) const {
  const auto slot = static_cast<uint16_t>(id);
  if (slot > slots_used_) return nullptr;
  Connection* connection = slots_[slot].connection;
  return connection != nullptr && connection->id == id ? connection : nullptr;
}

void Reactor::Add(ListName name, uint16_t slot) {
  uint16_t& next = slots_[slot].next[name];
  if (next != 0) return;
  List& list = lists_[name];
  next = list.length++ == 0 ? slot : std::exchange(slots_[list.last].next[name], slot);
  list.last = slot;
}

uint16_t Reactor::TakeFrom(ListName name) {
  List& list = lists_[name];
  if (list.length == 0) return 0;
  --list.length;
  uint16_t& first = slots_[list.last].next[name];
  const uint16_t slot = first;
  first = slots_[slot].next[name];
  slots_[slot].next[name] = 0;
  return slot;
}

Connection* Reactor::Add(int fd, unsigned flags) {
  errno = EMFILE;
  auto* connection = HasRoom() ? new (std::nothrow) Connection : nullptr;
  if (connection == nullptr) return nullptr;
  uint16_t slot = TakeFrom(kFree);
  if (slot == 0) slot = static_cast<uint16_t>(++slots_used_);
  slots_[slot].connection = connection;
  connection->reactor = this;
  connection->fd = fd;
  connection->flags = static_cast<uint16_t>(flags);
  connection->ready = connection->Is(Connection::kConnecting) ? 0 : kWritable;
  connection->id = (slots_[slot].generation & kGenerationMask) << kSlotBits | slot;
  pending_[slot] = 0;
  credit_[slot] = 0;
  // Once for all: a change is told once, and `ready` remembers it.
  epoll_event event = {};
  event.events = kReadable | kWritable | EPOLLET;
  event.data.u64 = static_cast<uint64_t>(connection->id);
  if (epoll_ctl(epoll_.Get(), EPOLL_CTL_ADD, fd, &event) == 0) return connection;
  const int error = errno;
  Forget(connection);
  errno = error;
  return nullptr;
}

bool Reactor::WantsRead(const Connection& connection) const {
  if ((connection.ready & kReadable) == 0 ||
      connection.Is(Connection::kConnecting | Connection::kPaused | Connection::kAtEnd |
                    Connection::kFailed)) {
    return false;
  }
  return connection.ssl != nullptr || connection.Is(Connection::kListener) ||
         credit_[connection.Slot()] > 0;
}

void Reactor::ReadSoon(Connection* connection) {
  if ((connection->ready & kReadable) == 0) return;
  Add(connection->is_long ? kLong : kShort, connection->Slot());
}

void Reactor::Fail(Connection* connection, int failure, int detail) {
  if (connection->Is(Connection::kFailed)) return;
  connection->flags |= Connection::kFailed;
  connection->failure = failure;
  connection->failure_detail = detail;
  connection->queue.Clear();
  TellPending(*connection);
  Add(kShort, connection->Slot());
}

// Frees everything but the descriptor.
void Reactor::Forget(Connection* connection) {
  const uint16_t slot = connection->Slot();
  slots_[slot].connection = nullptr;
  ++slots_[slot].generation;
  Add(kFree, slot);
  delete connection;
}

void Reactor::Close(Connection* connection) {
  // Leaves the set by itself.
  close(connection->fd);
  Forget(connection);
}

// Gives bytes to the kernel; what it does not take waits behind what is waiting. Uses up the pieces.
void Reactor::Send(Connection* connection, iovec* pieces, size_t piece_count) {
  size_t sent = 0;
  const bool tries = connection->queue.Size() == 0 && (connection->ready & kWritable) != 0;
  if (tries) {
    msghdr message = {};
    message.msg_iov = pieces;
    message.msg_iovlen = piece_count;
    const ssize_t taken = piece_count == 1
                              ? send(connection->fd, pieces->iov_base, pieces->iov_len, kSendFlags)
                              : sendmsg(connection->fd, &message, kSendFlags);
    if (taken < 0 && errno != EAGAIN) return Fail(connection, errno);
    sent = static_cast<size_t>(std::max(taken, ssize_t{0}));
  }
  for (const iovec* piece = pieces; piece < pieces + piece_count; ++piece) {
    const size_t skipped = std::min(sent, piece->iov_len);
    sent -= skipped;
    if (skipped == piece->iov_len) continue;
    // Where a queue waits for its turn of this batch, the word that it may be sent still counts.
    if (tries) connection->ready &= ~kWritable;
    Enqueue(connection, static_cast<uint8_t*>(piece->iov_base) + skipped, piece->iov_len - skipped);
  }
  TellPending(*connection);
}

void Reactor::Enqueue(Connection* connection, const void* bytes, size_t count) {
  ByteQueue& queue = connection->queue;
  if (connection->Is(Connection::kFailed) && connection->failure > 0) return;
  if (count > sizes_.queue_bytes_max - queue.Size()) return Fail(connection, ENOBUFS);
  if (!queue.Append(static_cast<const uint8_t*>(bytes), count)) Fail(connection, ENOMEM);
}

// Encrypts what is staged and sends what waits.
void Reactor::Flush(Connection* connection) {
  EncryptStage(connection);
  ByteQueue& queue = connection->queue;
  if (queue.Size() > 0 && (connection->ready & kWritable) != 0) {
    const ssize_t sent = send(connection->fd, queue.Data(), queue.Size(), kSendFlags);
    if (sent < 0 && errno != EAGAIN) return Fail(connection, errno);
    queue.Consume(static_cast<size_t>(std::max(sent, ssize_t{0})));
    if (queue.Size() > 0) connection->ready &= ~kWritable;
    FinishEnding(connection);
  }
  TellPending(*connection);
}

void Reactor::FinishEnding(Connection* connection) {
  if (!connection->Is(Connection::kEnding) || connection->queue.Size() > 0 ||
      connection->Is(Connection::kConnecting | Connection::kFailed)) {
    return;
  }
  // Fails when the peer has reset the connection, which reading will tell.
  shutdown(connection->fd, SHUT_WR);
}

}  // namespace ztunnel
