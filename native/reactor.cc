#include "reactor.h"

#include <algorithm>
#include <cerrno>
#include <new>

namespace ztunnel {

Reactor* Reactor::Make(napi_env env, const ReactorSizes& sizes, const Bytes& memory,
                       napi_value turn) {
  auto* reactor = new (std::nothrow) Reactor;
  int error = reactor == nullptr ? ENOMEM : reactor->Prepare(env, sizes, memory, turn);
  if (error == 0) return reactor;
  delete reactor;
  ThrowErrno(env, error, "createReactor");
  return nullptr;
}

// Answers an errno, 0 when all is well. Nothing of Node's is held before the last step can't fail.
int Reactor::Prepare(napi_env env, const ReactorSizes& sizes, const Bytes& memory,
                     napi_value turn) {
  env_ = env;
  sizes_ = sizes;
  const size_t slots = sizes.connections_max + 1;
  events_ = reinterpret_cast<int32_t*>(memory.data);
  operations_ = events_ + 4 * sizes.events_max;
  pending_ = operations_ + 4 * sizes.operations_max;
  credit_ = pending_ + slots;
  arena_ = memory.data + memory.length - sizes.arena_bytes - sizes.scratch_bytes;
  slots_ = Allocate<Slot>(slots);
  received_ = Allocate<uint8_t>(sizes.cipher_read_bytes);
  encrypted_ = Allocate<uint8_t>(std::max(sizes.cipher_send_bytes, kCipherRecordBytes));
  bio_method_.reset(BIO_meth_new(BIO_TYPE_SOURCE_SINK, "reactor"));
  if (!slots_ || !received_ || !encrypted_ || !bio_method_) return ENOMEM;
  BIO_meth_set_read(bio_method_.get(), ReadCipher);
  BIO_meth_set_write(bio_method_.get(), WriteCipher);
  BIO_meth_set_ctrl(bio_method_.get(), ControlCipher);

  epoll_ = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_.IsOpen()) return errno;
  const int error = JoinLoop();
  if (error != 0) return error;

  napi_create_reference(env, turn, 1, &turn_);
  napi_create_reference(env, memory.buffer, 1, &memory_);
  auto close = [](napi_async_cleanup_hook_handle, void* reactor) {
    static_cast<Reactor*>(reactor)->Close();
  };
  napi_add_async_cleanup_hook(env, close, this, &cleanup_);
  return 0;
}

// A thread waits in the set of its first reactor, with libuv's set inside: the other way round, a
// batch takes three system calls to wait for. The sets of further reactors are inside libuv's.
int Reactor::JoinLoop() {
  napi_get_instance_data(env_, reinterpret_cast<void**>(&environment_));
  napi_get_uv_event_loop(env_, &loop_);
  if (environment_->waiting == nullptr) {
    // Slot 0 is nobody's.
    epoll_event libuv = {};
    libuv.events = EPOLLIN;
    if (epoll_ctl(epoll_.Get(), EPOLL_CTL_ADD, uv_backend_fd(loop_), &libuv) != 0) return errno;
    environment_->waiting = this;
  } else {
    int status = uv_poll_init(loop_, &poll_, epoll_.Get());
    if (status != 0) return -status;
    ++open_handles_;
    uv_poll_start(&poll_, UV_READABLE, [](uv_poll_t*, int, int) {});
  }
  open_handles_ += 2;
  poll_.data = prepare_.data = idle_.data = this;
  uv_idle_init(loop_, &idle_);
  uv_prepare_init(loop_, &prepare_);
  uv_prepare_start(&prepare_, [](uv_prepare_t* prepare) {
    static_cast<Reactor*>(prepare->data)->RunBatches();
  });
  return 0;
}

void Reactor::Close() {
  if (closed_) return;
  closed_ = true;
  for (uint32_t slot = 1; slot <= slots_used_; ++slot) {
    if (Connection* connection = slots_[slot].connection) {
      Close(connection);
    }
  }
  LetGo(reinterpret_cast<uv_handle_t*>(&idle_));
  LetGo(reinterpret_cast<uv_handle_t*>(&prepare_));
  if (environment_->waiting == this) {
    environment_->waiting = nullptr;
  } else {
    LetGo(reinterpret_cast<uv_handle_t*>(&poll_));
  }
  // A batch that is running still stands on them.
  if (!in_batch_) DropReferences();
}

void Reactor::LetGo(uv_handle_t* handle) {
  uv_close(handle, [](uv_handle_t* closed) {
    auto* reactor = static_cast<Reactor*>(closed->data);
    if (--reactor->open_handles_ > 0) return;
    reactor->epoll_ = UniqueFd();
    napi_remove_async_cleanup_hook(reactor->cleanup_);
    reactor->Release();
  });
}

void Reactor::Release() {
  if (std::exchange(is_released_, true)) delete this;
}

void Reactor::DropReferences() {
  napi_delete_reference(env_, turn_);
  napi_delete_reference(env_, memory_);
}

void Reactor::WakeUp() {
  if (first_[kUntold] != 0 && !in_batch_) uv_idle_start(&idle_, [](uv_idle_t*) {});
}

}  // namespace ztunnel
