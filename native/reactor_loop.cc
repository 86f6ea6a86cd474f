// The batch: what is ready becomes events, JavaScript answers with operations.
#include <algorithm>
#include <cstring>
#include <utility>

#include "reactor.h"

namespace ztunnel {

// Two full TLS records, however many share the limit of a batch.
constexpr size_t kSharedReadBytesMin = 32 << 10;
// In a row, before libuv looks after what runs once per turn of its loop.
constexpr int kBatchesMax = 64;
// No step emits more events than this between two calls of Reserve().
constexpr uint32_t kEventsPerStep = 4;

// Waits as long as libuv would have and longer: until it has something to do. Its next step is then
// one without waiting, which the idle handle sees to.
void Reactor::RunBatches() {
  uv_idle_stop(&idle_);
  if (environment_->waiting != this) {
    RunBatch(0);
    return;
  }
  for (int batch = 0; batch < kBatchesMax; ++batch) {
    uv_update_time(loop_);
    const bool has_told = first_[kUntold] == 0;
    const int timeout_ms = has_told ? uv_backend_timeout(loop_) : 0;
    if (RunBatch(timeout_ms) || closed_ || (has_told && timeout_ms == 0)) break;
  }
  if (!closed_) uv_idle_start(&idle_, [](uv_idle_t*) {});
}

bool Reactor::RunBatch(int timeout_ms) {
  epoll_event ready[kReadyMax];
  const int count = epoll_wait(epoll_.Get(), ready, kReadyMax, timeout_ms);
  read_bytes_max_ = std::max(static_cast<size_t>(std::max(credit_[0] / std::max(count, 1), 0)),
                             kSharedReadBytesMin);
  const auto is_short = [this](const epoll_event& one) {
    const Connection* connection = Find(static_cast<int32_t>(one.data.u64));
    return connection == nullptr || !connection->is_bulk;
  };
  const epoll_event* const end = ready + std::max(count, 0);
  const epoll_event* const bulk = std::partition(ready, ready + std::max(count, 0), is_short);
  bool libuv_is_ready = false;
  in_batch_ = true;
  for (const epoll_event* one = ready; one < end && !closed_; ++one) {
    // What is short is told and answered before anything long is read.
    if (one == bulk) Deliver();
    if (one->data.u64 == 0) {
      libuv_is_ready = true;
    } else if (!closed_) {
      Dispatch(*one);
    }
  }
  if (!closed_) TellUntold();
  if (!closed_) Deliver();
  while (first_[kUnsettled] != 0 && !closed_) {
    Connection* connection = slots_[TakeFrom(kUnsettled)].connection;
    if (connection != nullptr) UpdateInterest(connection);
  }
  in_batch_ = false;
  if (closed_) {
    DropReferences();
  } else if (environment_->waiting != this) {
    WakeUp();
  }
  return libuv_is_ready;
}

void Reactor::Dispatch(const epoll_event& ready) {
  const int32_t id = static_cast<int32_t>(ready.data.u64);
  Reserve(0);
  Connection* connection = Find(id);
  if (connection == nullptr) return;
  if (connection->Is(Connection::kListener)) return Accept(connection);
  if (connection->Is(Connection::kConnecting)) return AskSocket(connection);

  if ((ready.events & EPOLLOUT) != 0 && connection->queue.Size() > 0) {
    FlushQueue(connection);
    if (connection->queue.Size() == 0 && !connection->Is(Connection::kFailed)) Emit(kDrain, id);
  }
  if ((ready.events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
    if (WantsRead(*connection)) {
      // Finds out by itself what an error or a hang-up is about.
      Read(connection);
      if ((connection = Find(id)) == nullptr) return;
    } else if ((ready.events & EPOLLERR) != 0) {
      AskSocket(connection);
    } else if ((ready.events & EPOLLHUP) != 0) {
      connection->flags |= Connection::kHungUp;
    }
  }
  Add(kUnsettled, connection->Slot());
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

void Reactor::TellUntold() {
  while (first_[kUntold] != 0) {
    Reserve(0);
    // Reserve may have told JavaScript, which may have closed any.
    if (closed_) return;
    Connection* connection = slots_[TakeFrom(kUntold)].connection;
    if (connection == nullptr) continue;
    if (connection->Is(Connection::kFailed)) {
      Emit(kError, connection->id, connection->failure, connection->failure_detail);
    } else if (connection->Is(Connection::kAnswered)) {
      Open(connection);
    }
    connection->Clear(Connection::kAnswered);
  }
}

}  // namespace ztunnel
