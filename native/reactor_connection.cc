// The table of connections, and what plain ones and tunnels have in common.
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <new>

#include "reactor.h"

namespace ztunnel {

Connection* Reactor::Find(int32_t id) const {
  const auto slot = static_cast<uint16_t>(id);
  if (slot > slots_used_) return nullptr;
  Connection* connection = slots_[slot].connection;
  return connection != nullptr && connection->id == id ? connection : nullptr;
}

void Reactor::Add(List list, uint16_t slot) {
  uint16_t& next = slots_[slot].next[list];
  if (next != 0) return;
  next = first_[list] == 0 ? slot : first_[list];
  first_[list] = slot;
}

uint16_t Reactor::TakeFrom(List list) {
  const uint16_t slot = first_[list];
  const uint16_t next = std::exchange(slots_[slot].next[list], uint16_t{0});
  first_[list] = next == slot ? 0 : next;
  return slot;
}

// Takes the descriptor on success; otherwise returns nullptr with errno.
Connection* Reactor::Add(int fd, unsigned flags) {
  if (!HasRoom()) {
    errno = EMFILE;
    return nullptr;
  }
  auto* connection = new (std::nothrow) Connection;
  if (connection == nullptr) {
    errno = ENOMEM;
    return nullptr;
  }
  uint16_t slot = TakeFrom(kFree);
  if (slot == 0) slot = static_cast<uint16_t>(++slots_used_);
  slots_[slot].connection = connection;
  connection->reactor = this;
  connection->fd = fd;
  connection->flags = static_cast<uint16_t>(flags);
  connection->id = (slots_[slot].generation & kGenerationMask) << kSlotBits | slot;
  pending_[slot] = 0;
  credit_[slot] = 0;
  return connection;
}

bool Reactor::WantsRead(const Connection& connection) const {
  if (connection.Is(Connection::kConnecting | Connection::kPaused | Connection::kAtEnd |
                    Connection::kFailed)) {
    return false;
  }
  return connection.ssl != nullptr || connection.Is(Connection::kListener) ||
         credit_[connection.Slot()] > 0;
}

void Reactor::UpdateInterest(Connection* connection) {
  if (connection->Is(Connection::kFailed)) return;
  uint32_t wanted = WantsRead(*connection) ? static_cast<uint32_t>(EPOLLIN) : 0u;
  if (connection->Is(Connection::kConnecting) || connection->queue.Size() > 0) wanted |= EPOLLOUT;
  // One that is not read yet joins when it is; one that hung up leaves.
  if (wanted == 0 && (!connection->Is(Connection::kInSet) || connection->Is(Connection::kHungUp))) {
    return LeaveSet(connection);
  }
  if (connection->Is(Connection::kInSet) && wanted == connection->interest) return;
  if (!Watch(connection, wanted)) Fail(connection, errno);
}

// Returns false with errno.
bool Reactor::Watch(Connection* connection, uint32_t interest) {
  epoll_event event = {};
  event.events = connection->interest = interest;
  event.data.u64 = static_cast<uint64_t>(connection->id);
  const int how = connection->Is(Connection::kInSet) ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
  if (epoll_ctl(epoll_.Get(), how, connection->fd, &event) != 0) return false;
  connection->flags |= Connection::kInSet;
  return true;
}

void Reactor::LeaveSet(Connection* connection) {
  if (!connection->Is(Connection::kInSet)) return;
  epoll_ctl(epoll_.Get(), EPOLL_CTL_DEL, connection->fd, nullptr);
  connection->Clear(Connection::kInSet);
}

void Reactor::Fail(Connection* connection, int failure, int detail) {
  if (connection->Is(Connection::kFailed)) return;
  connection->flags |= Connection::kFailed;
  connection->failure = failure;
  connection->failure_detail = detail;
  connection->queue.Clear();
  TellPending(*connection);
  LeaveSet(connection);
  Add(kUntold, connection->Slot());
}

// Frees everything but the descriptor.
void Reactor::Forget(Connection* connection) {
  if (sender_ == connection) {
    sender_ = nullptr;
    encrypted_bytes_ = 0;
  }
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
  ByteQueue& queue = connection->queue;
  size_t sent = 0;
  if (queue.Size() == 0 && !connection->Is(Connection::kConnecting)) {
    msghdr message = {};
    message.msg_iov = pieces;
    message.msg_iovlen = piece_count;
    constexpr int kHow = MSG_NOSIGNAL | MSG_DONTWAIT;
    const ssize_t taken = piece_count == 1
                              ? send(connection->fd, pieces->iov_base, pieces->iov_len, kHow)
                              : sendmsg(connection->fd, &message, kHow);
    if (taken < 0 && errno != EAGAIN && errno != EINTR) return Fail(connection, errno);
    sent = static_cast<size_t>(std::max(taken, ssize_t{0}));
  }
  for (const iovec* piece = pieces; piece < pieces + piece_count; ++piece) {
    const size_t skipped = std::min(sent, piece->iov_len), left = piece->iov_len - skipped;
    sent -= skipped;
    if (left == 0) continue;
    if (left > sizes_.queue_bytes_max - queue.Size()) return Fail(connection, ENOBUFS);
    if (!queue.Append(static_cast<uint8_t*>(piece->iov_base) + skipped, left)) {
      return Fail(connection, ENOMEM);
    }
  }
  TellPending(*connection);
}

void Reactor::FlushQueue(Connection* connection) {
  ssize_t sent = send(connection->fd, connection->queue.Data(), connection->queue.Size(),
                      MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent < 0) {
    if (errno != EAGAIN && errno != EINTR) Fail(connection, errno);
    return;
  }
  connection->queue.Consume(static_cast<size_t>(sent));
  TellPending(*connection);
  FinishEnding(connection);
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
