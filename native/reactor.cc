#include "reactor.h"

#include <cerrno>

namespace ztunnel {

// Nothing of Node's is held before the last step can't fail.
int Reactor::Open(napi_env env, const ReactorSizes& sizes, const Bytes& memory, napi_value turn) {
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
  bio_method_.reset(BIO_meth_new(BIO_TYPE_SOURCE_SINK, "reactor"));
  if (!slots_ || !received_ || !bio_method_) return ENOMEM;
  BIO_meth_set_read(bio_method_.get(), ReadCipher);
  BIO_meth_set_write(bio_method_.get(), WriteCipher);
  BIO_meth_set_ctrl(bio_method_.get(), ControlCipher);

  // The thread waits in our set, with libuv's set inside: the other way round, a batch takes three
  // system calls to wait for. Slot 0 is nobody's.
  napi_get_uv_event_loop(env, &loop_);
  epoll_event libuv = {};
  libuv.events = EPOLLIN;
  epoll_ = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_.IsOpen()) return errno;
  if (epoll_ctl(epoll_.Get(), EPOLL_CTL_ADD, uv_backend_fd(loop_), &libuv) != 0) return errno;
  EnvironmentOf(env)->reactor = this;
  prepare_.data = idle_.data = this;
  uv_idle_init(loop_, &idle_);
  uv_prepare_init(loop_, &prepare_);
  uv_prepare_start(&prepare_, [](uv_prepare_t* prepare) {
    static_cast<Reactor*>(prepare->data)->RunBatches();
  });
  napi_create_reference(env, turn, 1, &turn_);
  napi_create_reference(env, memory.buffer, 1, &memory_);
  auto close = [](napi_async_cleanup_hook_handle, void* reactor) {
    static_cast<Reactor*>(reactor)->Close();
  };
  napi_add_async_cleanup_hook(env, close, this, &cleanup_);
  return 0;
}

void Reactor::Close() {
  if (std::exchange(closed_, true)) return;
  EnvironmentOf(env_)->reactor = nullptr;
  for (uint32_t slot = 1; slot <= slots_used_; ++slot) {
    if (slots_[slot].connection != nullptr) Close(slots_[slot].connection);
  }
  uv_close(reinterpret_cast<uv_handle_t*>(&idle_), [](uv_handle_t* idle) {
    auto* reactor = static_cast<Reactor*>(idle->data);
    uv_close(reinterpret_cast<uv_handle_t*>(&reactor->prepare_), LetGo);
  });
}

// Not within a batch, which still stands on it.
void Reactor::LetGo(uv_handle_t* prepare) {
  auto* reactor = static_cast<Reactor*>(prepare->data);
  napi_delete_reference(reactor->env_, reactor->turn_);
  napi_delete_reference(reactor->env_, reactor->memory_);
  napi_remove_async_cleanup_hook(reactor->cleanup_);
  delete reactor;
}

}  // namespace ztunnel
