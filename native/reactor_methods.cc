// The reactor as a JavaScript object: its options, its arrays and the methods about all of it.
#include <climits>

#include "functions.h"
#include "reactor_methods.h"

namespace ztunnel {
namespace {

struct NumberOption {
  const char* name;
  size_t ReactorOptions::* field;
  int64_t min;
  int64_t max;
};

constexpr NumberOption kNumberOptions[] = {
    {"arenaBytes", &ReactorOptions::arena_bytes, 64 << 10, 1 << 30},
    {"scratchBytes", &ReactorOptions::scratch_bytes, 0, 1 << 29},
    {"eventsMax", &ReactorOptions::events_max, 16, 1 << 20},
    {"operationsMax", &ReactorOptions::operations_max, 1, 1 << 20},
    {"connectionsMax", &ReactorOptions::connections_max, 1, 0xffff},
    {"plainReadBytes", &ReactorOptions::plain_read_bytes, 1, 1 << 29},
    {"cipherReadBytes", &ReactorOptions::cipher_read_bytes, 1 << 10, 1 << 29},
    {"cipherSendBytes", &ReactorOptions::cipher_send_bytes, 1, 1 << 29},
    {"acceptsPerTurn", &ReactorOptions::accepts_per_turn, 1, INT_MAX},
    {"queueBytesMax", &ReactorOptions::queue_bytes_max, 1, INT_MAX},
    {"rekeyBytes", &ReactorOptions::rekey_bytes, 1, int64_t{1} << 40},
};
// What the arena must hold beside a read: headroom, alignment, a record that came in pieces.
constexpr size_t kArenaSpareBytes = 32 << 10;

// Answers nullopt with an exception.
std::optional<ReactorOptions> ReadOptions(napi_env env, napi_value given) {
  if (!RequireObject(env, given, "options")) return std::nullopt;
  ReactorOptions options = {};
  for (const NumberOption& option : kNumberOptions) {
    std::optional<int64_t> value =
        ReadInteger(env, Property(env, given, option.name), option.name, option.max);
    if (!value || *value < option.min) {
      ThrowType(env, option.name, ("an integer from " + std::to_string(option.min) + " to " +
                                   std::to_string(option.max)).c_str());
      return std::nullopt;
    }
    options.*option.field = static_cast<size_t>(*value);
  }
  if (std::max(options.plain_read_bytes, options.cipher_read_bytes) + kArenaSpareBytes >
      options.arena_bytes) {
    ThrowType(env, "arenaBytes", "32 KiB more than plainReadBytes and cipherReadBytes");
    return std::nullopt;
  }
  return options;
}

napi_value MakeContext(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  Reactor* reactor = ReactorOf(env, arguments);
  napi_value given = arguments.values[0];
  if (reactor == nullptr || !RequireObject(env, given, "options")) return nullptr;
  auto text = [&](const char* name) {
    return RequireText(env, Property(env, given, name), name).value_or("");
  };
  TlsContextOptions options;
  options.chain_pem = text("chainPem");
  options.key_pem = text("keyPem");
  options.roots_pem = text("rootsPem");
  options.groups = text("groups");
  options.tls12 = ReadFlag(env, Property(env, given, "tls12"), "tls12").value_or(false);
  if (Pending(env)) return nullptr;
  std::string problem;
  uint32_t number = reactor->Contexts().Make(options, &problem);
  if (number != 0) return FromInteger(env, number);
  napi_throw_error(env, nullptr, problem.c_str());
  return nullptr;
}

napi_value FreeContext(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  Reactor* reactor = ReactorOf(env, arguments);
  if (reactor == nullptr) return nullptr;
  std::optional<int64_t> number = ReadInteger(env, arguments.values[0], "context", UINT32_MAX);
  if (!number || !reactor->Contexts().Free(static_cast<uint32_t>(*number))) {
    ThrowType(env, "context", "that of a TLS context");
  }
  return nullptr;
}

napi_value Flush(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  Reactor* reactor = ReactorOf(env, arguments);
  if (reactor == nullptr) return nullptr;
  std::optional<int64_t> count =
      RequireInteger(env, arguments.values[0], "operationCount",
                     static_cast<int64_t>(reactor->Options().operations_max));
  if (!count) return nullptr;
  reactor->Perform(static_cast<uint32_t>(*count));
  reactor->WakeUp();
  return nullptr;
}

napi_value LimitBatches(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  Reactor* reactor = ReactorOf(env, arguments);
  if (reactor == nullptr) return nullptr;
  std::optional<int64_t> bytes = RequireInteger(env, arguments.values[0], "bytes", INT_MAX);
  if (bytes) reactor->LimitBatches(static_cast<size_t>(*bytes));
  return nullptr;
}

napi_value StaleOperations(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  Reactor* reactor = ReactorOf(env, arguments);
  if (reactor == nullptr) return nullptr;
  return FromInteger(env, static_cast<int64_t>(reactor->StaleOperations()));
}

napi_value CloseReactor(napi_env env, napi_callback_info info) {
  auto* handle = static_cast<Reactor::Handle*>(Arguments(env, info).data);
  if (handle->reactor != nullptr) handle->reactor->Close();
  return nullptr;
}

constexpr Method kMethods[] = {
    {"makeContext", MakeContext},
    {"freeContext", FreeContext},
    {"flush", Flush},
    {"limitBatches", LimitBatches},
    {"staleOperations", StaleOperations},
    {"close", CloseReactor},
};

struct Array {
  const char* name;
  Reactor::Block block;
  napi_typedarray_type type;
};

constexpr Array kArrays[] = {
    {"arena", Reactor::kArena, napi_uint8_array},
    {"events", Reactor::kEvents, napi_int32_array},
    {"operations", Reactor::kOperations, napi_int32_array},
    {"pending", Reactor::kPending, napi_int32_array},
    {"credit", Reactor::kCredit, napi_int32_array},
};

}  // namespace

// The reactor whose method was called. Answers nullptr with an exception.
Reactor* ReactorOf(napi_env env, const Arguments& arguments) {
  Reactor* reactor = static_cast<Reactor::Handle*>(arguments.data)->reactor;
  if (reactor == nullptr) ThrowType(env, "the reactor", "one that is not closed");
  return reactor;
}

void AddMethod(napi_env env, napi_value object, Reactor* reactor, const Method& method) {
  Reactor::Handle* handle = reactor->JoinHandle();
  napi_value function = nullptr;
  napi_create_function(env, method.name, NAPI_AUTO_LENGTH, method.function, handle, &function);
  napi_add_finalizer(
      env, function, handle,
      [](napi_env, void* data, void*) {
        Reactor::LeaveHandle(static_cast<Reactor::Handle*>(data));
      },
      nullptr, nullptr);
  SetProperty(env, object, method.name, function);
}

napi_value CreateReactor(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  std::optional<ReactorOptions> options = ReadOptions(env, arguments.values[0]);
  if (!options) return nullptr;
  if (TypeOf(env, arguments.values[1]) != napi_function) {
    return ThrowType(env, "turn", "a function");
  }
  std::string problem = OpenSslProblem();
  if (!problem.empty()) {
    napi_throw_error(env, nullptr, problem.c_str());
    return nullptr;
  }
  Reactor* reactor = Reactor::Make(env, *options, arguments.values[1]);
  if (reactor == nullptr) return nullptr;

  napi_value result = NewObject(env);
  for (const Method& method : kMethods) AddMethod(env, result, reactor, method);
  AddConnectionMethods(env, result, reactor);
  for (const Array& array : kArrays) {
    napi_value value = reactor->Memory()->ToArray(env, array.block, array.type);
    if (value == nullptr) {
      reactor->Close();
      return nullptr;
    }
    SetProperty(env, result, array.name, value);
  }
  return result;
}

}  // namespace ztunnel
