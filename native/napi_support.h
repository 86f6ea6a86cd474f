// Reading arguments and answering with values and errors in Node's own shape.
//
// The readers throw a JavaScript TypeError on a value of the wrong kind and answer nullopt. So: read
// everything, then ask Pending() once.
#pragma once

#include <node_api.h>

#include <cerrno>
#include <climits>
#include <cstdint>
#include <optional>
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

std::optional<int64_t> RequireInteger(napi_env env, napi_value value, const char* name,
                                      int64_t max, int64_t min = 0);
std::optional<Bytes> RequireBytes(napi_env env, napi_value value, const char* name);

napi_value FromInteger(napi_env env, int64_t value);
napi_value FromText(napi_env env, const std::string& text);
napi_value NewObject(napi_env env);
void SetProperty(napi_env env, napi_value object, const char* name, napi_value value);

// Ties something of ours to an object of JavaScript, under a tag that tells it from other objects;
// `is_gone` is called when the object is.
void Wrap(napi_env env, napi_value object, const napi_type_tag& tag, void* ours,
          napi_finalize is_gone = nullptr);
// Answers nullptr for anything that was not wrapped under this tag.
void* Unwrap(napi_env env, napi_value object, const napi_type_tag& tag);

// Calls a function of JavaScript with a number; what it throws is an uncaught error.
void CallFromLoop(napi_env env, napi_ref function, uint32_t number);

struct Method {
  const char* name;
  napi_callback function;
};

template <size_t N>
void AddMethods(napi_env env, napi_value object, const Method (&methods)[N]) {
  for (const Method& method : methods) {
    napi_value function = nullptr;
    napi_create_function(env, method.name, NAPI_AUTO_LENGTH, method.function, nullptr, &function);
    SetProperty(env, object, method.name, function);
  }
}

// All throw and return nullptr, to be returned in turn. `detail` is what the call was about.
napi_value ThrowErrno(napi_env env, int error, const char* syscall, const std::string& detail = "");
napi_value ThrowType(napi_env env, const std::string& name, const std::string& expected);
napi_value ThrowText(napi_env env, const std::string& text);

// The next argument, as the parameter that it is for; the environment is none.
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
