// What JavaScript asks for. Everything it says is checked: ids, kinds, ranges.
#include <unistd.h>

#include "reactor.h"

namespace ztunnel {

// Pieces of one sendmsg().
constexpr size_t kPiecesMax = 64;

bool Reactor::InArena(int32_t offset, int32_t length) const {
  return offset >= 0 && length >= 0 &&
         static_cast<size_t>(offset) + static_cast<size_t>(length) <=
             sizes_.arena_bytes + sizes_.scratch_bytes;
}

bool Reactor::Perform(uint32_t operation_count) {
  if (operation_count > sizes_.operations_max) return false;
  for (uint32_t index = 0; index < operation_count;) {
    const int32_t* operation = operations_ + 4 * index;
    Connection* connection = Find(operation[1]);
    if (connection != nullptr && operation[0] == kWrite && connection->ssl == nullptr) {
      index = WritePlain(connection, index, operation_count);
      continue;
    }
    if (connection == nullptr || !PerformOne(connection, operation)) ++pending_[0];
    ++index;
  }
  while (lists_[kStaged].length > 0) {
    Connection* connection = slots_[TakeFrom(kStaged)].connection;
    if (connection != nullptr) Flush(connection);
  }
  return true;
}

// Returns false when the operation makes no sense at this moment.
bool Reactor::PerformOne(Connection* connection, const int32_t* operation) {
  const int32_t a = operation[2], b = operation[3];
  switch (operation[0]) {
    case kWrite:
      return InArena(a, b) && WriteTunnel(connection, arena_ + a, static_cast<size_t>(b));
    case kEnd:
      if (connection->Is(Connection::kListener | Connection::kEnding | Connection::kFailed)) {
        return false;
      }
      if (connection->ssl != nullptr) EndTunnel(connection, SSL_AD_CLOSE_NOTIFY);
      connection->flags |= Connection::kEnding;
      FinishEnding(connection);
      return true;
    case kReset: {
      const linger now = {1, 0};
      setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
      Close(connection);
      return true;
    }
    case kAlert:
      if (a < 0 || a > UINT8_MAX || connection->ssl == nullptr) return false;
      EndTunnel(connection, a);
      [[fallthrough]];
    case kClose:
      if (connection->ssl != nullptr) {
        Flush(connection);
        // What the peer sent meanwhile must not turn our last words into an RST.
        recv(connection->fd, nullptr, sizes_.cipher_read_bytes, MSG_TRUNC | MSG_DONTWAIT);
      }
      Close(connection);
      return true;
    case kResume:
      connection->Clear(Connection::kPaused);
      ReadSoon(connection);
      return true;
    default:
      return false;
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
  return index;
}

}  // namespace ztunnel
