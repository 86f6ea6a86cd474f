// The reactor as a JavaScript object.
#include <netinet/in.h>

#include <cerrno>
#include <climits>

#include "functions.h"
#include "napi_support.h"
#include "reactor.h"

namespace ztunnel {
namespace {

// Tells our objects from those of others when a method is called on something else.
constexpr napi_type_tag kReactorTag = {0x7a74756e6e656c52, 0x656163746f722e31};

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
};
// What the arena must hold beside a read: headroom, alignment, a record that came in pieces.
constexpr size_t kArenaSpareBytes = 32 << 10;
constexpr int64_t kRekeyBytes = int64_t{64} << 30;

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
  std::optional<int64_t> rekey =
      ReadInteger(env, Property(env, given, "rekeyBytes"), "rekeyBytes", int64_t{1} << 53);
  if (Pending(env)) return std::nullopt;
  options.rekey_bytes = static_cast<size_t>(rekey.value_or(kRekeyBytes));
  if (std::max(options.plain_read_bytes, options.cipher_read_bytes) + kArenaSpareBytes >
      options.arena_bytes) {
    ThrowType(env, "arenaBytes", "32 KiB more than plainReadBytes and cipherReadBytes");
    return std::nullopt;
  }
  return options;
}

// The reactor that a method was called on. Answers nullptr with an exception.
Reactor* ReactorOf(napi_env env, const Arguments& arguments) {
  bool ours = false;
  void* reactor = nullptr;
  if (TypeOf(env, arguments.receiver) == napi_object) {
    napi_check_object_type_tag(env, arguments.receiver, &kReactorTag, &ours);
  }
  if (ours && napi_unwrap(env, arguments.receiver, &reactor) == napi_ok) {
    return static_cast<Reactor*>(reactor);
  }
  ThrowType(env, "this", "a reactor that is not closed");
  return nullptr;
}

// A call about one connection.
struct ConnectionCall {
  ConnectionCall(napi_env env, napi_callback_info info) : arguments(env, info) {
    if ((reactor = ReactorOf(env, arguments)) == nullptr) return;
    std::optional<int64_t> id = ReadInteger(env, arguments.values[0], "id", INT_MAX);
    if (id) connection = reactor->Find(static_cast<int32_t>(*id));
    if (connection == nullptr) ThrowType(env, "id", "that of a connection that is not closed");
  }

  Arguments arguments;
  Reactor* reactor = nullptr;
  // nullptr with an exception when there is none.
  Connection* connection = nullptr;
};

napi_value Taken(napi_env env, int32_t id, const char* syscall, int fd) {
  if (id == 0) return ThrowErrno(env, errno, syscall, "fd " + std::to_string(fd));
  return FromInteger(env, id);
}

napi_value ListenOn(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  Reactor* reactor = ReactorOf(env, arguments);
  std::optional<int> fd;
  if (reactor == nullptr || !(fd = RequireFd(env, arguments.values[0], "fd"))) return nullptr;
  return Taken(env, reactor->Listen(*fd), "listen", *fd);
}

napi_value Adopt(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  Reactor* reactor = ReactorOf(env, arguments);
  std::optional<int> fd;
  if (reactor == nullptr || !(fd = RequireFd(env, arguments.values[0], "fd"))) return nullptr;
  return Taken(env, reactor->Adopt(*fd), "adopt", *fd);
}

napi_value Connect(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  Reactor* reactor = ReactorOf(env, arguments);
  if (reactor == nullptr) return nullptr;
  std::optional<int> fd = RequireFd(env, arguments.values[0], "fd");
  std::optional<std::string> ip = RequireText(env, arguments.values[1], "ip");
  std::optional<int64_t> port = ReadInteger(env, arguments.values[2], "port", UINT16_MAX);
  if (!port) ThrowType(env, "port", "an integer from 0 to 65535");
  if (Pending(env)) return nullptr;
  int family = 0;
  socklen_t length = sizeof(family);
  if (getsockopt(*fd, SOL_SOCKET, SO_DOMAIN, &family, &length) != 0) {
    return ThrowErrno(env, errno, "getsockopt", "SO_DOMAIN of fd " + std::to_string(*fd));
  }
  Address address;
  if ((family != AF_INET && family != AF_INET6) ||
      !ParseAddress(family, *ip, static_cast<uint16_t>(*port), &address)) {
    return ThrowType(env, "ip", "an address of the socket's family");
  }
  napi_value id = Taken(env, reactor->Connect(*fd, address), "connect", *fd);
  reactor->WakeUp();
  return id;
}

napi_value ReleaseConnection(napi_env env, napi_callback_info info) {
  ConnectionCall call(env, info);
  if (call.connection == nullptr) return nullptr;
  if (call.connection->ssl != nullptr || call.connection->queue.Size() > 0) {
    napi_throw_error(env, nullptr, "only a plain connection with nothing queued can be released");
    return nullptr;
  }
  return FromInteger(env, call.reactor->Detach(call.connection));
}

napi_value FdOf(napi_env env, napi_callback_info info) {
  ConnectionCall call(env, info);
  return call.connection == nullptr ? nullptr : FromInteger(env, call.connection->fd);
}

napi_value StartTls(napi_env env, napi_callback_info info) {
  ConnectionCall call(env, info);
  if (call.connection == nullptr) return nullptr;
  std::optional<int64_t> number =
      ReadInteger(env, call.arguments.values[1], "context", UINT32_MAX);
  std::optional<bool> server = ReadFlag(env, call.arguments.values[2], "server");
  if (Pending(env)) return nullptr;
  SSL_CTX* context =
      number ? call.reactor->Contexts().Find(static_cast<uint32_t>(*number)) : nullptr;
  if (context == nullptr) return ThrowType(env, "context", "that of a TLS context");
  if (!server) return ThrowType(env, "server", "a boolean");
  constexpr unsigned kUnfit = Connection::kListener | Connection::kEnding | Connection::kAtEnd;
  if (call.connection->ssl != nullptr || call.connection->Is(kUnfit) ||
      call.connection->queue.Size() > 0) {
    napi_throw_error(env, nullptr, "only a plain connection in its first state can begin TLS");
    return nullptr;
  }
  if (!call.reactor->StartTls(call.connection, context, *server)) {
    napi_throw_error(env, nullptr, TakeOpenSslError().c_str());
  }
  call.reactor->WakeUp();
  return nullptr;
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

napi_value PeerLeaf(napi_env env, napi_callback_info info) {
  ConnectionCall call(env, info);
  if (call.connection == nullptr) return nullptr;
  const Connection& connection = *call.connection;
  X509* leaf = connection.ssl == nullptr || connection.Is(Connection::kHandshake)
                   ? nullptr
                   : SSL_get0_peer_certificate(connection.ssl);
  int length = leaf == nullptr ? 0 : std::max(i2d_X509(leaf, nullptr), 0);
  void* bytes = nullptr;
  napi_value buffer = nullptr, array = nullptr;
  if (napi_create_arraybuffer(env, static_cast<size_t>(length), &bytes, &buffer) != napi_ok) {
    return nullptr;
  }
  auto* into = static_cast<uint8_t*>(bytes);
  if (length > 0) i2d_X509(leaf, &into);
  napi_create_typedarray(env, napi_uint8_array, static_cast<size_t>(length), buffer, 0, &array);
  return array;
}

napi_value Alpn(napi_env env, napi_callback_info info) {
  ConnectionCall call(env, info);
  if (call.connection == nullptr) return nullptr;
  const unsigned char* name = nullptr;
  unsigned length = 0;
  if (call.connection->ssl != nullptr) {
    SSL_get0_alpn_selected(call.connection->ssl, &name, &length);
  }
  napi_value text = nullptr;
  napi_create_string_latin1(env, name == nullptr ? "" : reinterpret_cast<const char*>(name), length,
                            &text);
  return text;
}

napi_value ErrorText(napi_env env, napi_callback_info info) {
  ConnectionCall call(env, info);
  if (call.connection == nullptr) return nullptr;
  const Connection& connection = *call.connection;
  const char* words = connection.words != nullptr  ? connection.words
                      : connection.failure > 0     ? uv_err_name(-connection.failure)
                                                   : "";
  napi_value text = nullptr;
  napi_create_string_utf8(env, words, NAPI_AUTO_LENGTH, &text);
  return text;
}

napi_value Flush(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  Reactor* reactor = ReactorOf(env, arguments);
  if (reactor == nullptr) return nullptr;
  std::optional<int64_t> count =
      ReadInteger(env, arguments.values[0], "operationCount",
                  static_cast<int64_t>(reactor->Options().operations_max));
  if (!count) return ThrowType(env, "operationCount", "an integer");
  reactor->Perform(static_cast<uint32_t>(*count));
  reactor->WakeUp();
  return nullptr;
}

napi_value Stats(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  Reactor* reactor = ReactorOf(env, arguments);
  if (reactor == nullptr) return nullptr;
  napi_value result = nullptr;
  napi_create_object(env, &result);
  auto set = [&](const char* name, uint64_t value) {
    SetProperty(env, result, name, FromInteger(env, static_cast<int64_t>(value)));
  };
  set("staleOperations", reactor->StaleOperations());
  set("queuedBytes", reactor->QueuedBytes());
  return result;
}

napi_value CloseReactor(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  bool ours = false;
  if (TypeOf(env, arguments.receiver) == napi_object) {
    napi_check_object_type_tag(env, arguments.receiver, &kReactorTag, &ours);
  }
  void* reactor = nullptr;
  if (ours && napi_remove_wrap(env, arguments.receiver, &reactor) == napi_ok) {
    static_cast<Reactor*>(reactor)->Close();
  }
  return nullptr;
}

struct Method {
  const char* name;
  napi_callback function;
};

constexpr Method kMethods[] = {
    {"listen", ListenOn},         {"adopt", Adopt},
    {"connect", Connect},         {"release", ReleaseConnection},
    {"fdOf", FdOf},               {"startTls", StartTls},
    {"makeContext", MakeContext}, {"freeContext", FreeContext},
    {"peerLeaf", PeerLeaf},       {"alpn", Alpn},
    {"errorText", ErrorText},     {"flush", Flush},
    {"stats", Stats},             {"close", CloseReactor},
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

  napi_value result = nullptr;
  napi_create_object(env, &result);
  napi_type_tag_object(env, result, &kReactorTag);
  napi_wrap(env, result, reactor, nullptr, nullptr, nullptr);
  for (const Method& method : kMethods) {
    napi_value function = nullptr;
    napi_create_function(env, method.name, NAPI_AUTO_LENGTH, method.function, nullptr, &function);
    SetProperty(env, result, method.name, function);
  }
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
