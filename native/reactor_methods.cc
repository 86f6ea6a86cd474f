// The reactor as a JavaScript object: its sizes, its arrays and its methods.
#include <cerrno>
#include <climits>

#include "functions.h"
#include "napi_support.h"
#include "reactor.h"

namespace ztunnel {
namespace {

struct SizeOption {
  const char* name;
  size_t ReactorSizes::* field;
  int64_t min, max;
};

constexpr SizeOption kSizeOptions[] = {
    {"arenaBytes", &ReactorSizes::arena_bytes, 64 << 10, 1 << 30},
    {"scratchBytes", &ReactorSizes::scratch_bytes, 0, 1 << 29},
    {"eventsMax", &ReactorSizes::events_max, 16, 1 << 20},
    {"operationsMax", &ReactorSizes::operations_max, 1, 1 << 20},
    {"connectionsMax", &ReactorSizes::connections_max, 1, 0xffff},
    {"plainReadBytes", &ReactorSizes::plain_read_bytes, 1, 1 << 29},
    {"cipherReadBytes", &ReactorSizes::cipher_read_bytes, 1 << 10, 1 << 29},
    {"cipherSendBytes", &ReactorSizes::cipher_send_bytes, 1, 1 << 29},
    {"acceptsPerTurn", &ReactorSizes::accepts_per_turn, 1, INT_MAX},
    {"queueBytesMax", &ReactorSizes::queue_bytes_max, 1, INT_MAX},
    {"rekeyBytes", &ReactorSizes::rekey_bytes, 1, int64_t{1} << 40},
};
// What the arena must hold beside a read: headroom, alignment, a record that came in pieces.
constexpr size_t kArenaSpareBytes = 32 << 10;
// Tells our objects from those of others.
constexpr napi_type_tag kContextTag = {0x7a74756e6e656c54, 0x6c73436f6e746578};

// Answers nullopt with an exception.
std::optional<ReactorSizes> ReadSizes(napi_env env, napi_value given) {
  if (!RequireObject(env, given, "options")) return std::nullopt;
  ReactorSizes sizes = {};
  for (const auto& [name, field, min, max] : kSizeOptions) {
    auto value = RequireInteger(env, Property(env, given, name), name, max, min);
    if (!value) return std::nullopt;
    sizes.*field = static_cast<size_t>(*value);
  }
  const size_t most = std::max(sizes.plain_read_bytes, sizes.cipher_read_bytes);
  if (most + kArenaSpareBytes <= sizes.arena_bytes) return sizes;
  ThrowType(env, "arenaBytes", "32 KiB more than plainReadBytes and cipherReadBytes");
  return std::nullopt;
}

// One call of a method. The connection is that of the id, where a method takes one.
struct Call {
  napi_env env;
  const napi_value* values;
  Reactor& reactor;
  Connection* connection;
};

// Answers with an exception when the reactor is closed or the id is nobody's.
template <napi_value (*kMethod)(const Call&), bool kTakesId>
napi_value Run(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  Reactor* reactor = static_cast<SharedMemory*>(arguments.data)->reactor;
  if (reactor == nullptr) return ThrowType(env, "the reactor", "one that is not closed");
  Connection* connection = nullptr;
  if (kTakesId) {
    auto id = ReadInteger(env, arguments.values[0], "id", INT_MAX);
    if (id) connection = reactor->Find(static_cast<int32_t>(*id));
    if (connection == nullptr) {
      return ThrowType(env, "id", "that of a connection that is not closed");
    }
  }
  napi_value result = kMethod({env, arguments.values, *reactor, connection});
  reactor->WakeUp();
  return result;
}

napi_value Taken(napi_env env, int32_t id, const char* syscall, int fd) {
  if (id == 0) return ThrowErrno(env, errno, syscall, "fd " + std::to_string(fd));
  return FromInteger(env, id);
}

napi_value Listen(const Call& call) {
  std::optional<int> fd = RequireFd(call.env, call.values[0], "fd");
  std::optional<bool> redirected = ReadFlag(call.env, call.values[1], "redirected");
  if (!fd || Pending(call.env)) return nullptr;
  return Taken(call.env, call.reactor.Listen(*fd, redirected.value_or(false)), "epoll_ctl", *fd);
}

napi_value Connect(const Call& call) {
  std::optional<int> fd = RequireFd(call.env, call.values[0], "fd");
  std::optional<Address> address = RequireAddress(call.env, call.values[1], call.values[2], "");
  if (!fd || !address) return nullptr;
  return Taken(call.env, call.reactor.Connect(*fd, *address), "connect", *fd);
}

napi_value Pair(const Call& call) {
  int32_t ids[2];
  if (!call.reactor.Pair(ids)) return ThrowErrno(call.env, errno, "socketpair");
  napi_value result = nullptr;
  if (napi_create_array_with_length(call.env, 2, &result) != napi_ok) return nullptr;
  for (uint32_t i = 0; i < 2; ++i) {
    napi_set_element(call.env, result, i, FromInteger(call.env, ids[i]));
  }
  return result;
}

napi_value FdOf(const Call& call) { return FromInteger(call.env, call.connection->fd); }

napi_value MakeContext(const Call& call) {
  napi_env env = call.env;
  if (!RequireObject(env, call.values[0], "options")) return nullptr;
  auto text = [&](const char* name) {
    return RequireText(env, Property(env, call.values[0], name), name).value_or("");
  };
  TlsContextOptions options = {text("chainPem"), text("keyPem"), text("rootsPem"), text("groups")};
  options.tls12 = ReadFlag(env, Property(env, call.values[0], "tls12"), "tls12").value_or(false);
  if (Pending(env)) return nullptr;
  std::string problem;
  TlsContext context = MakeTlsContext(options, &problem);
  if (context == nullptr) return ThrowText(env, problem);
  napi_value result = NewObject(env);
  auto is_gone = [](napi_env, void* data, void*) { SSL_CTX_free(static_cast<SSL_CTX*>(data)); };
  napi_type_tag_object(env, result, &kContextTag);
  if (napi_wrap(env, result, context.get(), is_gone, nullptr, nullptr) == napi_ok) {
    context.release();
  }
  return result;
}

napi_value StartTls(const Call& call) {
  bool is_context = false;
  void* context = nullptr;
  if (TypeOf(call.env, call.values[1]) == napi_object) {
    napi_check_object_type_tag(call.env, call.values[1], &kContextTag, &is_context);
  }
  if (is_context) napi_unwrap(call.env, call.values[1], &context);
  if (context == nullptr) return ThrowType(call.env, "context", "a TLS context");
  std::optional<bool> server = ReadFlag(call.env, call.values[2], "server");
  if (!server) return ThrowType(call.env, "server", "a boolean");
  constexpr unsigned kUnfit = Connection::kListener | Connection::kEnding | Connection::kAtEnd;
  if (call.connection->ssl != nullptr || call.connection->Is(kUnfit) ||
      call.connection->queue.Size() > 0) {
    return ThrowText(call.env, "only a plain connection in its first state can begin TLS");
  }
  if (call.reactor.StartTls(call.connection, static_cast<SSL_CTX*>(context), *server)) {
    return nullptr;
  }
  return ThrowText(call.env, TakeOpenSslError());
}

// One after the other: each certificate says its own length.
napi_value PeerChain(const Call& call) {
  const Connection& connection = *call.connection;
  const bool is_open = connection.ssl != nullptr && !connection.Is(Connection::kHandshake);
  auto* chain = is_open ? SSL_get0_verified_chain(connection.ssl.get()) : nullptr;
  const int count = chain == nullptr ? 0 : sk_X509_num(chain);
  size_t length = 0;
  for (int i = 0; i < count; ++i) {
    length += static_cast<size_t>(std::max(i2d_X509(sk_X509_value(chain, i), nullptr), 0));
  }
  void* bytes = nullptr;
  napi_value result = nullptr;
  if (napi_create_buffer(call.env, length, &bytes, &result) != napi_ok) return nullptr;
  auto* into = static_cast<uint8_t*>(bytes);
  for (int i = 0; i < count && length > 0; ++i) i2d_X509(sk_X509_value(chain, i), &into);
  return result;
}

napi_value ErrorText(const Call& call) {
  const Connection& connection = *call.connection;
  return FromText(call.env, connection.words != nullptr ? connection.words.get()
                            : connection.failure > 0    ? uv_err_name(-connection.failure)
                                                        : "");
}

napi_value Flush(const Call& call) {
  const auto most = static_cast<int64_t>(call.reactor.Sizes().operations_max);
  auto count = RequireInteger(call.env, call.values[0], "operationCount", most);
  if (count) call.reactor.Perform(static_cast<uint32_t>(*count));
  return nullptr;
}

napi_value CloseReactor(napi_env env, napi_callback_info info) {
  Reactor* reactor = static_cast<SharedMemory*>(Arguments(env, info).data)->reactor;
  if (reactor != nullptr) reactor->Close();
  return nullptr;
}

constexpr Method kMethods[] = {
    {"listen", Run<Listen, false>},
    {"connect", Run<Connect, false>},
    {"pair", Run<Pair, false>},
    {"fdOf", Run<FdOf, true>},
    {"makeContext", Run<MakeContext, false>},
    {"startTls", Run<StartTls, true>},
    {"peerChain", Run<PeerChain, true>},
    {"errorText", Run<ErrorText, true>},
    {"flush", Run<Flush, false>},
    {"close", CloseReactor},
};

void AddMethod(napi_env env, napi_value object, const Method& method, SharedMemory* memory) {
  napi_value function = nullptr;
  napi_create_function(env, method.name, NAPI_AUTO_LENGTH, method.function, memory, &function);
  memory->Join();
  auto is_gone = [](napi_env, void* data, void*) { static_cast<SharedMemory*>(data)->Leave(); };
  napi_add_finalizer(env, function, memory, is_gone, nullptr, nullptr);
  SetProperty(env, object, method.name, function);
}

}  // namespace

napi_value CreateReactor(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  std::optional<ReactorSizes> sizes = ReadSizes(env, arguments.values[0]);
  if (!sizes) return nullptr;
  if (TypeOf(env, arguments.values[1]) != napi_function) {
    return ThrowType(env, "turn", "a function");
  }
  const std::string problem = OpenSslProblem();
  if (!problem.empty()) return ThrowText(env, problem);
  Reactor* reactor = Reactor::Make(env, *sizes, arguments.values[1]);
  if (reactor == nullptr) return nullptr;

  napi_value result = NewObject(env);
  for (const Method& method : kMethods) AddMethod(env, result, method, reactor->Memory());
  if (reactor->AddArrays(result)) return result;
  reactor->Close();
  return nullptr;
}

}  // namespace ztunnel
