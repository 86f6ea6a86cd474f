#include "reactor.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <new>

#include "napi_support.h"

namespace ztunnel {

Reactor* Reactor::Make(napi_env env, const ReactorOptions& options, napi_value turn) {
  auto* reactor = new (std::nothrow) Reactor;
  int error = reactor == nullptr ? ENOMEM : reactor->Prepare(env, options, turn);
  if (error == 0) return reactor;
  delete reactor;
  ThrowErrno(env, error, "createReactor");
  return nullptr;
}

// Answers an errno, 0 when all is well. Nothing of Node's is held before the last step can't fail.
int Reactor::Prepare(napi_env env, const ReactorOptions& options, napi_value turn) {
  env_ = env;
  options_ = options;
  size_t slots = options.connections_max + 1;
  memory_ = SharedMemory::Map({options.arena_bytes + options.scratch_bytes, options.events_max * 16,
                               options.operations_max * 16, slots * 4, slots * 4});
  slots_ = static_cast<Slot*>(calloc(slots, sizeof(Slot)));
  received_ = static_cast<uint8_t*>(malloc(options.cipher_read_bytes));
  encrypted_ =
      static_cast<uint8_t*>(malloc(std::max(options.cipher_send_bytes, kCipherRecordBytes)));
  bio_method_ = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "reactor");
  if (memory_ == nullptr || slots_ == nullptr || received_ == nullptr || encrypted_ == nullptr ||
      bio_method_ == nullptr) {
    return ENOMEM;
  }
  BIO_meth_set_read(bio_method_, ReadCipher);
  BIO_meth_set_write(bio_method_, WriteCipher);
  BIO_meth_set_ctrl(bio_method_, ControlCipher);

  epoll_ = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
  wake_ = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  // Edge-triggered, so that it need not be read. Slot 0 is nobody's.
  epoll_event wake = {};
  wake.events = EPOLLIN | EPOLLET;
  if (!epoll_.IsOpen() || !wake_.IsOpen() ||
      epoll_ctl(epoll_.Get(), EPOLL_CTL_ADD, wake_.Get(), &wake) != 0) {
    return errno;
  }
  uv_loop_t* loop = nullptr;
  napi_get_uv_event_loop(env, &loop);
  int status = uv_poll_init(loop, &poll_, epoll_.Get());
  if (status != 0) return -status;
  poll_.data = this;

  napi_value name = nullptr;
  napi_create_string_utf8(env, "Reactor", NAPI_AUTO_LENGTH, &name);
  napi_create_reference(env, turn, 1, &turn_);
  napi_async_init(env, nullptr, name, &async_context_);
  napi_add_async_cleanup_hook(
      env,
      [](napi_async_cleanup_hook_handle, void* data) { static_cast<Reactor*>(data)->Close(); },
      this, &cleanup_);
  uv_poll_start(&poll_, UV_READABLE, OnReady);
  return 0;
}

Reactor::~Reactor() {
  if (memory_ != nullptr) memory_->Release();
  if (bio_method_ != nullptr) BIO_meth_free(bio_method_);
  for (size_t i = 0; i < spare_stage_count_; ++i) free(spare_stages_[i]);
  free(slots_);
  free(received_);
  free(encrypted_);
}

void Reactor::Close() {
  if (closed_) return;
  closed_ = true;
  for (uint32_t slot = 1; slot <= slots_used_; ++slot) {
    if (Connection* connection = slots_[slot].connection) {
      close(connection->fd);
      Forget(connection);
    }
  }
  uv_poll_stop(&poll_);
  uv_close(reinterpret_cast<uv_handle_t*>(&poll_), [](uv_handle_t* handle) {
    auto* reactor = static_cast<Reactor*>(handle->data);
    napi_remove_async_cleanup_hook(reactor->cleanup_);
    delete reactor;
  });
  // A batch that is running still stands on them.
  if (!in_batch_) DropReferences();
}

void Reactor::DropReferences() {
  napi_delete_reference(env_, turn_);
  napi_async_destroy(env_, async_context_);
}

void Reactor::WakeUp() {
  const uint64_t once = 1;
  if (failed_ != nullptr && !in_batch_) {
    // Can't fail: the counter is far from its end.
    [[maybe_unused]] ssize_t written = write(wake_.Get(), &once, sizeof(once));
  }
}

}  // namespace ztunnel
