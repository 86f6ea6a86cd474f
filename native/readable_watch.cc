#include <uv.h>

#include "functions.h"

namespace ztunnel {
namespace {

// Lives until libuv has let go of the handle; closed by JavaScript or with its environment.
struct Watch {
  uv_poll_t poll = {};
  napi_env env = nullptr;
  napi_ref callback = nullptr;
  napi_async_cleanup_hook_handle cleanup = nullptr;
};

// Tells our objects from those of others when close() is called on something else.
constexpr napi_type_tag kWatchTag = {0x7a74756e6e656c57, 0x6174636852656164};

void Stop(Watch* watch) {
  auto* handle = reinterpret_cast<uv_handle_t*>(&watch->poll);
  // The environment may end between close() and libuv's answer.
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
  // The callback may close the watch, so it is not touched any more.
  CallFromLoop(watch->env, watch->callback, 0);
}

napi_value CloseWatch(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  void* watch = Unwrap(env, arguments.receiver, kWatchTag);
  if (watch == nullptr) return nullptr;
  napi_remove_wrap(env, arguments.receiver, nullptr);
  Stop(static_cast<Watch*>(watch));
  return nullptr;
}

constexpr Method kMethods[] = {{"close", CloseWatch}};

}  // namespace

napi_value WatchReadable(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  std::optional<int> fd = RequireFd(env, arguments.values[0], "fd");
  if (!fd) return nullptr;
  if (TypeOf(env, arguments.values[1]) != napi_function) {
    return ThrowType(env, "readable", "a function");
  }
  uv_loop_t* loop = nullptr;
  napi_get_uv_event_loop(env, &loop);
  auto* watch = new Watch;
  watch->poll.data = watch;
  watch->env = env;
  int status = uv_poll_init(loop, &watch->poll, *fd);
  if (status != 0) {
    delete watch;
    return FromInteger(env, status);
  }
  napi_create_reference(env, arguments.values[1], 1, &watch->callback);
  napi_add_async_cleanup_hook(
      env, [](napi_async_cleanup_hook_handle, void* data) { Stop(static_cast<Watch*>(data)); },
      watch, &watch->cleanup);
  uv_poll_start(&watch->poll, UV_READABLE, Readable);

  napi_value result = NewObject(env);
  Wrap(env, result, kWatchTag, watch);
  AddMethods(env, result, kMethods);
  return result;
}

}  // namespace ztunnel
