// The batch: what is ready becomes events, JavaScript answers with operations.
#include <algorithm>
#include <cerrno>

#include "napi_support.h"
#include "reactor.h"

namespace ztunnel {
namespace {

// Two full TLS records, however many share the limit of a batch.
constexpr size_t kSharedReadBytesMin = 32 << 10;
// In a row, before libuv looks after what runs once per turn of its loop.
constexpr int kBatchesMax = 64;
// No step emits more events than this between two calls of Reserve().
constexpr uint32_t kEventsPerStep = 4;

}  // namespace

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
    const bool has_told = untold_ == nullptr;
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
  for (int i = 0; i < unsettled_count_ && !closed_; ++i) {
    if (Connection* connection = Find(unsettled_[i])) UpdateInterest(connection);
  }
  unsettled_count_ = 0;
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
  if (connection->Is(Connection::kConnecting)) return FinishConnect(connection);

  if ((ready.events & EPOLLOUT) != 0 && connection->queue.Size() > 0) {
    FlushQueue(connection);
    if (connection->queue.Size() == 0 && !connection->Is(Connection::kFailed)) Emit(kDrain, id);
  }
  if ((ready.events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
    if (WantsRead(*connection)) {
      // Finds out by itself what an error or a hang-up is about.
      connection->ssl == nullptr ? ReadPlain(connection) : ReadTunnel(connection);
      if ((connection = Find(id)) == nullptr) return;
    } else if ((ready.events & EPOLLERR) != 0) {
      int error = 0;
      socklen_t length = sizeof(error);
      getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &length);
      Fail(connection, error == 0 ? ECONNRESET : error);
    } else if ((ready.events & EPOLLHUP) != 0) {
      connection->flags |= Connection::kHungUp;
    }
  }
  SettleLater(connection);
}

void Reactor::SettleLater(Connection* connection) {
  if (unsettled_count_ == kReadyMax) return UpdateInterest(connection);
  unsettled_[unsettled_count_++] = connection->id;
}

void Reactor::Reserve(size_t arena_bytes) {
  if (sizes_.arena_bytes - arena_used_ < arena_bytes ||
      sizes_.events_max - event_count_ < kEventsPerStep) {
    Deliver();
  }
}

void Reactor::Occupy(size_t end) {
  arena_used_ = std::min((end + 15) & ~size_t{15}, sizes_.arena_bytes);
}

void Reactor::Emit(Event kind, int32_t id, int64_t a, int64_t b) {
  int32_t* entry = events_ + 4 * event_count_++;
  entry[0] = kind;
  entry[1] = id;
  entry[2] = static_cast<int32_t>(a);
  entry[3] = static_cast<int32_t>(b);
}

void Reactor::Deliver() {
  const uint32_t events = event_count_;
  event_count_ = 0;
  if (events == 0) {
    arena_used_ = 0;
    return;
  }
  napi_env env = env_;
  napi_handle_scope scope = nullptr;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  napi_value receiver = nullptr, turn = nullptr, argument = nullptr, result = nullptr;
  napi_get_global(env, &receiver);
  napi_get_reference_value(env, turn_, &turn);
  napi_create_uint32(env, events, &argument);

  // Not napi_make_callback: it would run microtasks before the operations are performed, and these
  // may already fill the list anew and flush it.
  napi_callback_scope callback = nullptr;
  if (napi_open_callback_scope(env, receiver, async_context_, &callback) == napi_ok) {
    if (napi_call_function(env, receiver, turn, 1, &argument, &result) == napi_ok) {
      auto operations = RequireInteger(env, result, "the number of operations",
                                       static_cast<int64_t>(sizes_.operations_max));
      if (operations && !closed_) Perform(static_cast<uint32_t>(*operations));
    }
    arena_used_ = 0;
    if (Pending(env)) {
      napi_value error = nullptr;
      napi_get_and_clear_last_exception(env, &error);
      napi_fatal_exception(env, error);
    }
    napi_close_callback_scope(env, callback);
  }
  napi_close_handle_scope(env, scope);
}

void Reactor::TellUntold() {
  while (untold_ != nullptr) {
    Reserve(0);
    // Reserve may have told JavaScript, which may have closed it.
    Connection* connection = untold_;
    if (connection == nullptr) return;
    untold_ = connection->next_untold;
    connection->next_untold = nullptr;
    connection->flags &= static_cast<uint16_t>(~Connection::kAnswered);
    if (connection->Is(Connection::kFailed)) {
      Emit(kError, connection->id, connection->failure, connection->failure_detail);
    } else {
      Open(connection);
    }
  }
}

}  // namespace ztunnel
