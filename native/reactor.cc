#include "reactor.h"

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
  batch_bytes_max_ = options.arena_bytes;
  size_t slots = options.connections_max + 1;
  memory_ = SharedMemory::Map({options.arena_bytes + options.scratch_bytes, options.events_max * 16,
                               options.operations_max * 16, slots * 4, slots * 4});
  slots_ = static_cast<Slot*>(calloc(slots, sizeof(Slot)));
  received_ = static_cast<uint8_t*>(malloc(options.cipher_read_bytes));
  encrypted_ =
      static_cast<uint8_t*>(malloc(std::max(options.cipher_send_bytes, kCipherRecordBytes)));
  bio_method_ = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "reactor");
  handle_ = new (std::nothrow) Handle{this, 1};
  if (handle_ == nullptr || memory_ == nullptr || slots_ == nullptr || received_ == nullptr || encrypted_ == nullptr ||
      bio_method_ == nullptr) {
    return ENOMEM;
  }
  BIO_meth_set_read(bio_method_, ReadCipher);
  BIO_meth_set_write(bio_method_, WriteCipher);
  BIO_meth_set_ctrl(bio_method_, ControlCipher);

  epoll_ = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_.IsOpen()) return errno;
  int error = JoinLoop();
  if (error != 0) return error;

  napi_value name = nullptr;
  napi_create_string_utf8(env, "Reactor", NAPI_AUTO_LENGTH, &name);
  napi_create_reference(env, turn, 1, &turn_);
  napi_async_init(env, nullptr, name, &async_context_);
  napi_add_async_cleanup_hook(
      env,
      [](napi_async_cleanup_hook_handle, void* data) { static_cast<Reactor*>(data)->Close(); },
      this, &cleanup_);
  return 0;
}

// A thread waits in the set of its first reactor, with libuv's set inside: the other way round, a
// batch takes three system calls to wait for. The sets of further reactors are inside libuv's.
int Reactor::JoinLoop() {
  void* environment = nullptr;
  napi_get_instance_data(env_, &environment);
  environment_ = static_cast<Environment*>(environment);
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

Reactor::~Reactor() {
  if (handle_ != nullptr) LeaveHandle(handle_);
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
  handle_->reactor = nullptr;
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

void Reactor::LeaveHandle(Handle* handle) {
  if (--handle->owners == 0) delete handle;
}

void Reactor::LetGo(uv_handle_t* handle) {
  uv_close(handle, [](uv_handle_t* closed) {
    auto* reactor = static_cast<Reactor*>(closed->data);
    if (--reactor->open_handles_ > 0) return;
    napi_remove_async_cleanup_hook(reactor->cleanup_);
    delete reactor;
  });
}

void Reactor::DropReferences() {
  napi_delete_reference(env_, turn_);
  napi_async_destroy(env_, async_context_);
}

void Reactor::WakeUp() {
  if (failed_ != nullptr && !in_batch_) uv_idle_start(&idle_, [](uv_idle_t*) {});
}

}  // namespace ztunnel
