// Reading arguments, and answering with values and errors in Node's own shape.
#pragma once

#include <node_api.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <tuple>

namespace ztunnel {

constexpr size_t kArgumentsMax = 6;

// The arguments of a call; those left out are `undefined`.
struct Arguments {
  Arguments(napi_env env, napi_callback_info info);

  size_t count = kArgumentsMax;
  napi_value values[kArgumentsMax] = {};
};

// Of a typed array; they stay as long as it and its buffer.
struct Bytes {
  uint8_t* data = nullptr;
  size_t length = 0;
  napi_value buffer = nullptr;
};

bool Pending(napi_env env);
napi_valuetype TypeOf(napi_env env, napi_value value);

napi_value FromInteger(napi_env env, int64_t value);
napi_value FromText(napi_env env, const std::string& text);
// Throws, and answers nullptr, to be returned in turn.
napi_value ThrowText(napi_env env, const std::string& text);

// Calls a function of JavaScript with a number; what it throws is an uncaught error.
void CallFromLoop(napi_env env, napi_ref function, uint32_t number);

// The next argument, as the parameter that it is for; the environment is none. One of the wrong kind is a
// TypeError: so take everything, then ask Pending() once.
inline void Take(napi_env env, const Arguments&, size_t*, napi_env* into) { *into = env; }
inline void Take(napi_env, const Arguments& arguments, size_t* next, napi_value* into) {
  *into = arguments.values[(*next)++];
}
void Take(napi_env env, const Arguments& arguments, size_t* next, int* into);
void Take(napi_env env, const Arguments& arguments, size_t* next, Bytes* into);

// A function of numbers and bytes that answers as a system call does, for JavaScript: errors are
// negative there.
template <auto kFunction, typename... T>
napi_value Run(napi_env env, napi_callback_info info, int (*)(T...)) {
  const Arguments arguments(env, info);
  [[maybe_unused]] size_t next = 0;
  std::tuple<T...> values;
  std::apply([&](T&... value) { (Take(env, arguments, &next, &value), ...); }, values);
  if (Pending(env)) return nullptr;
  const int answer = std::apply(kFunction, values);
  return FromInteger(env, answer == -1 ? -errno : answer);
}

template <auto kFunction>
napi_value Call(napi_env env, napi_callback_info info) {
  return Run<kFunction>(env, info, kFunction);
}

}  // namespace ztunnel
