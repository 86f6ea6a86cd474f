// The batch: what is ready becomes events, JavaScript answers with operations.
#include <algorithm>
#include <cstring>
#include <utility>

#include "reactor.h"

namespace ztunnel {

// Descriptors that one look at the set brings.
constexpr int kReadyMax = 256;
// Two full TLS records, however many share the limit of a batch.
constexpr size_t kSharedReadBytesMin = 32 << 10;
// In a row, before libuv looks after what runs once per turn of its loop.
constexpr int kBatchesMax = 64;
// No step emits more events than this between two calls of Reserve().
constexpr uint32_t kEventsPerStep = 4;

// Waits as long as libuv would have and longer: until it has something to do. Its next step is then
// one without waiting.
void Reactor::RunBatches() {
  uv_idle_stop(&idle_);
  for (int batch = 0; batch < kBatchesMax && !closed_; ++batch) {
    uv_update_time(loop_);
    const int timeout_ms = uv_backend_timeout(loop_);
    if (RunBatch(timeout_ms) || timeout_ms == 0) break;
  }
  if (!closed_) uv_idle_start(&idle_, [](uv_idle_t*) {});
}

bool Reactor::RunBatch(int timeout_ms) {
  const bool may_wait = lists_[kShort].length == 0 && lists_[kLong].length == 0;
  epoll_event ready[kReadyMax];
  const int count = epoll_wait(epoll_.Get(), ready, kReadyMax, may_wait ? timeout_ms : 0);
  bool libuv_is_ready = false;
  for (int i = 0; i < count; ++i) {
    if (ready[i].data.u64 == 0) libuv_is_ready = true;
    Connection* connection = Find(static_cast<int32_t>(ready[i].data.u64));
    if (connection == nullptr) continue;
    connection->ready |= ready[i].events;
    Add(connection->is_long ? kLong : kShort, connection->Slot());
  }
  const int sharers = std::max(lists_[kShort].length + lists_[kLong].length, 1);
  read_bytes_max_ =
      std::max(static_cast<size_t>(std::max(credit_[0] / sharers, 0)), kSharedReadBytesMin);
  // What is short is told and answered before anything long is read. Who joins now has time.
  for (ListName name : {kShort, kLong}) {
    for (int left = lists_[name].length; left > 0; --left) Dispatch(TakeFrom(name));
    Deliver();
  }
  return libuv_is_ready;
}

void Reactor::Dispatch(uint16_t slot) {
  Reserve(0);
  Connection* connection = slots_[slot].connection;
  if (connection == nullptr) return;
  if (connection->Is(Connection::kFailed)) {
    if (connection->Is(Connection::kTold)) return;
    connection->flags |= Connection::kTold;
    return Emit(kError, connection->id, connection->failure, connection->failure_detail);
  }
  if (connection->ready == 0) return;
  if (connection->Is(Connection::kListener)) return Accept(connection);
  const bool has_error = (connection->ready & EPOLLERR) != 0 && !WantsRead(*connection);
  if (connection->Is(Connection::kConnecting) || has_error) AskSocket(connection);
  if (connection->queue.Size() > 0 && (connection->ready & kWritable) != 0) Flush(connection);
  if (connection->Is(Connection::kOwesDrain) && connection->queue.Size() == 0 &&
      !connection->Is(Connection::kFailed)) {
    connection->Clear(Connection::kOwesDrain);
    Emit(kDrain, connection->id);
  }
  if (WantsRead(*connection)) Read(connection);
}

void Reactor::Reserve(size_t arena_bytes) {
  if (sizes_.arena_bytes - arena_used_ < arena_bytes ||
      sizes_.events_max - event_count_ < kEventsPerStep) {
    Deliver();
  }
}

void Reactor::Emit(Event kind, int32_t id, int64_t a, int64_t b) {
  const int32_t entry[] = {kind, id, static_cast<int32_t>(a), static_cast<int32_t>(b)};
  memcpy(events_ + 4 * event_count_++, entry, sizeof(entry));
}

void Reactor::Deliver() {
  const uint32_t events = std::exchange(event_count_, 0);
  if (events > 0) CallFromLoop(env_, turn_, events);
  arena_used_ = 0;
}

}  // namespace ztunnel
