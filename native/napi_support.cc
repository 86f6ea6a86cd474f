#include "napi_support.h"

#include <climits>

namespace ztunnel {
namespace {

constexpr const char* kPlaces[kArgumentsMax] = {"the first argument",  "the second argument",
                                                "the third argument",  "the fourth argument",
                                                "the fifth argument",  "the sixth argument"};

// Of several the first is told.
void Refuse(napi_env env, size_t at, const char* expected) {
  const std::string text = std::string(kPlaces[at]) + " must be " + expected;
  if (!Pending(env)) napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", text.c_str());
}

}  // namespace

Arguments::Arguments(napi_env env, napi_callback_info info) {
  napi_get_cb_info(env, info, &count, values, nullptr, nullptr);
}

bool Pending(napi_env env) {
  bool pending = false;
  napi_is_exception_pending(env, &pending);
  return pending;
}

napi_valuetype TypeOf(napi_env env, napi_value value) {
  napi_valuetype type = napi_undefined;
  if (value != nullptr) napi_typeof(env, value, &type);
  return type;
}

napi_value FromInteger(napi_env env, int64_t value) {
  napi_value result = nullptr;
  napi_create_int64(env, value, &result);
  return result;
}

napi_value FromText(napi_env env, const std::string& text) {
  napi_value result = nullptr;
  napi_create_string_utf8(env, text.data(), text.size(), &result);
  return result;
}

void CallFromLoop(napi_env env, napi_ref function, uint32_t number) {
  napi_handle_scope scope = nullptr;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  napi_value callee = nullptr, receiver = nullptr, argument = nullptr, error = nullptr;
  napi_get_reference_value(env, function, &callee);
  napi_get_global(env, &receiver);
  napi_create_uint32(env, number, &argument);
  if (napi_make_callback(env, nullptr, receiver, callee, 1, &argument, nullptr) ==
      napi_pending_exception) {
    napi_get_and_clear_last_exception(env, &error);
    napi_fatal_exception(env, error);
  }
  napi_close_handle_scope(env, scope);
}

napi_value ThrowText(napi_env env, const std::string& text) {
  napi_throw_error(env, nullptr, text.c_str());
  return nullptr;
}

void Take(napi_env env, const Arguments& arguments, size_t* next, int* into) {
  const size_t at = (*next)++;
  double number = 0;
  // A comparison with NaN is false, so NaN is refused as well.
  if (napi_get_value_double(env, arguments.values[at], &number) == napi_ok && number >= INT_MIN &&
      number <= INT_MAX && static_cast<int>(number) == number) {
    *into = static_cast<int>(number);
  } else {
    Refuse(env, at, "an integer from -2147483648 to 2147483647");
  }
}

void Take(napi_env env, const Arguments& arguments, size_t* next, Bytes* into) {
  const size_t at = (*next)++;
  napi_typedarray_type type = napi_int8_array;
  if (napi_get_typedarray_info(env, arguments.values[at], &type, &into->length,
                               reinterpret_cast<void**>(&into->data), &into->buffer,
                               nullptr) != napi_ok ||
      type != napi_uint8_array) {
    Refuse(env, at, "a Uint8Array");
  }
}

}  // namespace ztunnel
