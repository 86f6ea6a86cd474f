#include <uv.h>

#include "functions.h"

namespace ztunnel {

// Lives until libuv has let go of the handle; closed by JavaScript or with its environment.
struct Watch {
  uv_poll_t poll = {};
  napi_env env = nullptr;
  napi_ref callback = nullptr;
  napi_async_cleanup_hook_handle cleanup = nullptr;
};

namespace {

void Stop(Watch* watch) {
  auto* handle = reinterpret_cast<uv_handle_t*>(&watch->poll);
  // The environment may end between the end of a watch and libuv's answer.
  if (uv_is_closing(handle)) return;
  napi_delete_reference(watch->env, watch->callback);
  uv_close(handle, [](uv_handle_t* closed) {
    auto* watch = static_cast<Watch*>(closed->data);
    napi_remove_async_cleanup_hook(watch->cleanup);
    delete watch;
  });
}

// An error of the poll is reported as readable: the read that follows tells what it is.
void Readable(uv_poll_t* poll, int, int) {
  const auto* watch = static_cast<Watch*>(poll->data);
  // The callback may end the watch, so it is not touched any more.
  CallFromLoop(watch->env, watch->callback, 0);
}

}  // namespace

int WatchReadable(napi_env env, int fd, napi_value readable) {
  if (TypeOf(env, readable) != napi_function) return FailWith(EINVAL);
  uv_loop_t* loop = nullptr;
  napi_get_uv_event_loop(env, &loop);
  auto* watch = new Watch;
  const int status = uv_poll_init(loop, &watch->poll, fd);
  if (status != 0) {
    delete watch;
    return FailWith(-status);
  }
  watch->poll.data = watch;
  watch->env = env;
  napi_create_reference(env, readable, 1, &watch->callback);
  napi_add_async_cleanup_hook(
      env, [](napi_async_cleanup_hook_handle, void* data) { Stop(static_cast<Watch*>(data)); },
      watch, &watch->cleanup);
  uv_poll_start(&watch->poll, UV_READABLE, Readable);
  EnvironmentOf(env)->watches[fd] = watch;
  return 0;
}

int EndWatch(napi_env env, int fd) {
  auto& watches = EnvironmentOf(env)->watches;
  const auto watch = watches.find(fd);
  if (watch == watches.end()) return FailWith(ENOENT);
  Stop(watch->second);
  watches.erase(watch);
  return 0;
}

}  // namespace ztunnel
