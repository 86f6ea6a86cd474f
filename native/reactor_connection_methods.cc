// The methods about one connection.
#include <netinet/in.h>

#include <cerrno>

#include "reactor_methods.h"
#include "tcp_info.h"

namespace ztunnel {
namespace {

napi_value Taken(napi_env env, int32_t id, const char* syscall, int fd) {
  if (id == 0) return ThrowErrno(env, errno, syscall, "fd " + std::to_string(fd));
  return FromInteger(env, id);
}

napi_value Listen(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  Reactor* reactor = ReactorOf(env, arguments);
  std::optional<int> fd;
  if (reactor == nullptr || !(fd = RequireFd(env, arguments.values[0], "fd"))) return nullptr;
  return Taken(env, reactor->Listen(*fd), "epoll_ctl", *fd);
}

napi_value Connect(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  Reactor* reactor = ReactorOf(env, arguments);
  if (reactor == nullptr) return nullptr;
  std::optional<int> fd = RequireFd(env, arguments.values[0], "fd");
  std::optional<std::string> ip = RequireText(env, arguments.values[1], "ip");
  std::optional<int64_t> port = RequireInteger(env, arguments.values[2], "port", UINT16_MAX);
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

// One after the other: each certificate says its own length.
napi_value PeerChain(napi_env env, napi_callback_info info) {
  ConnectionCall call(env, info);
  if (call.connection == nullptr) return nullptr;
  const Connection& connection = *call.connection;
  const STACK_OF(X509)* chain = connection.ssl == nullptr || connection.Is(Connection::kHandshake)
                                    ? nullptr
                                    : SSL_get0_verified_chain(connection.ssl);
  const int count = chain == nullptr ? 0 : sk_X509_num(chain);
  size_t length = 0;
  for (int i = 0; i < count; ++i) {
    length += static_cast<size_t>(std::max(i2d_X509(sk_X509_value(chain, i), nullptr), 0));
  }
  void* bytes = nullptr;
  napi_value buffer = nullptr, array = nullptr;
  if (napi_create_arraybuffer(env, length, &bytes, &buffer) != napi_ok) return nullptr;
  auto* into = static_cast<uint8_t*>(bytes);
  for (int i = 0; i < count && length > 0; ++i) i2d_X509(sk_X509_value(chain, i), &into);
  napi_create_typedarray(env, napi_uint8_array, length, buffer, 0, &array);
  return array;
}

napi_value TcpInfo(napi_env env, napi_callback_info info) {
  ConnectionCall call(env, info);
  return call.connection == nullptr ? nullptr : ReadTcpInfo(env, call.connection->fd);
}

napi_value ErrorText(napi_env env, napi_callback_info info) {
  ConnectionCall call(env, info);
  if (call.connection == nullptr) return nullptr;
  const Connection& connection = *call.connection;
  const char* words = connection.words != nullptr  ? connection.words
                      : connection.failure > 0     ? uv_err_name(-connection.failure)
                                                   : "";
  return FromText(env, words);
}

constexpr Method kMethods[] = {
    {"listen", Listen},     {"connect", Connect},   {"fdOf", FdOf},
    {"startTls", StartTls}, {"peerLeaf", PeerLeaf}, {"peerChain", PeerChain},
    {"tcpInfo", TcpInfo},   {"errorText", ErrorText},
};

}  // namespace

void AddConnectionMethods(napi_env env, napi_value object, Reactor* reactor) {
  for (const Method& method : kMethods) AddMethod(env, object, reactor, method);
}

}  // namespace ztunnel
