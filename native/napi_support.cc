#include "napi_support.h"

#include <uv.h>

namespace ztunnel {
namespace {

constexpr const char* kPlaces[kArgumentsMax] = {"the first argument",  "the second argument",
                                                "the third argument",  "the fourth argument",
                                                "the fifth argument",  "the sixth argument"};

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

std::optional<int64_t> RequireInteger(napi_env env, napi_value value, const char* name,
                                      int64_t max, int64_t min) {
  double number = 0;
  // A comparison with NaN is false, so NaN is refused as well.
  if (value != nullptr && napi_get_value_double(env, value, &number) == napi_ok &&
      number >= static_cast<double>(min) && number <= static_cast<double>(max) &&
      static_cast<double>(static_cast<int64_t>(number)) == number) {
    return static_cast<int64_t>(number);
  }
  ThrowType(env, name,
            "an integer from " + std::to_string(min) + " to " + std::to_string(max));
  return std::nullopt;
}

std::optional<Bytes> RequireBytes(napi_env env, napi_value value, const char* name) {
  Bytes bytes;
  napi_typedarray_type type = napi_int8_array;
  if (napi_get_typedarray_info(env, value, &type, &bytes.length,
                               reinterpret_cast<void**>(&bytes.data), &bytes.buffer,
                               nullptr) == napi_ok &&
      type == napi_uint8_array) {
    return bytes;
  }
  ThrowType(env, name, "a Uint8Array");
  return std::nullopt;
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

napi_value NewObject(napi_env env) {
  napi_value result = nullptr;
  napi_create_object(env, &result);
  return result;
}

void SetProperty(napi_env env, napi_value object, const char* name, napi_value value) {
  napi_set_named_property(env, object, name, value);
}

void Wrap(napi_env env, napi_value object, const napi_type_tag& tag, void* ours,
          napi_finalize is_gone) {
  napi_type_tag_object(env, object, &tag);
  napi_wrap(env, object, ours, is_gone, nullptr, nullptr);
}

void* Unwrap(napi_env env, napi_value object, const napi_type_tag& tag) {
  bool is_ours = false;
  void* ours = nullptr;
  if (TypeOf(env, object) == napi_object) {
    napi_check_object_type_tag(env, object, &tag, &is_ours);
  }
  if (is_ours) napi_unwrap(env, object, &ours);
  return ours;
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

napi_value ThrowErrno(napi_env env, int error, const char* syscall, const std::string& detail) {
  std::string text = std::string(uv_err_name(-error)) + ": " + uv_strerror(-error) + ", " + syscall;
  if (!detail.empty()) text += " " + detail;
  napi_value result = nullptr;
  napi_create_error(env, FromText(env, uv_err_name(-error)), FromText(env, text), &result);
  SetProperty(env, result, "errno", FromInteger(env, -error));
  SetProperty(env, result, "syscall", FromText(env, syscall));
  napi_throw(env, result);
  return nullptr;
}

napi_value ThrowType(napi_env env, const std::string& name, const std::string& expected) {
  if (!Pending(env)) {
    napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", (name + " must be " + expected).c_str());
  }
  return nullptr;
}

napi_value ThrowText(napi_env env, const std::string& text) {
  napi_throw_error(env, nullptr, text.c_str());
  return nullptr;
}

void Take(napi_env env, const Arguments& arguments, size_t* next, int* into) {
  const size_t at = (*next)++;
  auto number = RequireInteger(env, arguments.values[at], kPlaces[at], INT_MAX, INT_MIN);
  if (number) *into = static_cast<int>(*number);
}

void Take(napi_env env, const Arguments& arguments, size_t* next, Bytes* into) {
  const size_t at = (*next)++;
  *into = RequireBytes(env, arguments.values[at], kPlaces[at]).value_or(Bytes());
}

}  // namespace ztunnel
