// The reactor as a JavaScript object: how it is made, and its methods.
#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <new>

#include "reactor.h"

namespace ztunnel {
namespace {

// What the arena must hold beside a read: headroom, alignment, a record that came in pieces.
constexpr size_t kArenaSpareBytes = 32 << 10;
constexpr size_t kEventsMin = 16;

// Whether everything stays inside the memory; src/net/reactor.ts tells what is wrong with an option.
bool AreUsable(const ReactorSizes& sizes, size_t memory_bytes) {
  const size_t largest = std::max(
      {sizes.arena_bytes, sizes.scratch_bytes, sizes.events_max, sizes.operations_max});
  const size_t longest = std::max(sizes.plain_read_bytes, sizes.cipher_read_bytes);
  return largest <= memory_bytes && sizes.connections_max <= UINT16_MAX &&
         sizes.MemoryBytes() <= memory_bytes && sizes.events_max >= kEventsMin &&
         longest <= sizes.arena_bytes && kArenaSpareBytes <= sizes.arena_bytes - longest;
}

// One call of a method. The connection is that of the id, where a method takes one.
struct Call {
  napi_env env;
  const napi_value* values;
  Reactor& reactor;
  Connection* connection;
};

// Answers with an exception when there is no reactor or the id is nobody's.
template <napi_value (*kMethod)(const Call&), bool kTakesId>
napi_value Run(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  Reactor* reactor = EnvironmentOf(env)->reactor;
  if (reactor == nullptr) return ThrowText(env, "this thread has no reactor");
  Connection* connection = nullptr;
  if (kTakesId) {
    auto id = ReadInteger(env, arguments.values[0], "id", INT_MAX);
    if (id) connection = reactor->Find(static_cast<int32_t>(*id));
    if (connection == nullptr) {
      return ThrowType(env, "id", "that of a connection that is not closed");
    }
  }
  return kMethod({env, arguments.values, *reactor, connection});
}

napi_value Take(const Call& call) {
  std::optional<int> fd = RequireFd(call.env, call.values[0], "fd");
  auto kind = RequireInteger(call.env, call.values[1], "kind", Connection::kKinds);
  if (!fd || !kind) return nullptr;
  const int32_t id = call.reactor.Take(*fd, static_cast<unsigned>(*kind));
  if (id == 0) return ThrowErrno(call.env, errno, "epoll_ctl", "fd " + std::to_string(*fd));
  return FromInteger(call.env, id);
}

napi_value FdOf(const Call& call) { return FromInteger(call.env, call.connection->fd); }

napi_value StartTls(const Call& call) {
  auto* context = static_cast<SSL_CTX*>(Unwrap(call.env, call.values[1], kTlsContextTag));
  if (context == nullptr) return ThrowType(call.env, "context", "a TLS context");
  std::optional<bool> server = ReadFlag(call.env, call.values[2], "server");
  if (!server) return ThrowType(call.env, "server", "a boolean");
  constexpr unsigned kUnfit = Connection::kListener | Connection::kEnding | Connection::kAtEnd;
  if (call.connection->ssl != nullptr || call.connection->Is(kUnfit) ||
      call.connection->queue.Size() > 0) {
    return ThrowText(call.env, "only a plain connection in its first state can begin TLS");
  }
  if (call.reactor.StartTls(call.connection, context, *server)) return nullptr;
  return ThrowText(call.env, TakeOpenSslError());
}

// One after the other: each certificate says its own length.
napi_value PeerChain(const Call& call) {
  const Connection& connection = *call.connection;
  const bool is_open = connection.ssl != nullptr && !connection.Is(Connection::kHandshake);
  auto* chain = is_open ? SSL_get0_verified_chain(connection.ssl.get()) : nullptr;
  const Owned<BIO, BIO_free> all(BIO_new(BIO_s_mem()));
  for (int i = 0; all != nullptr && i < sk_X509_num(chain); ++i) {
    i2d_X509_bio(all.get(), sk_X509_value(chain, i));
  }
  char* bytes = nullptr;
  const long length = all == nullptr ? 0 : BIO_get_mem_data(all.get(), &bytes);
  napi_value result = nullptr;
  napi_create_buffer_copy(call.env, static_cast<size_t>(length), bytes, nullptr, &result);
  return result;
}

napi_value Flush(const Call& call) {
  const auto most = static_cast<int64_t>(call.reactor.Sizes().operations_max);
  auto count = RequireInteger(call.env, call.values[0], "operationCount", most);
  if (count) call.reactor.Perform(static_cast<uint32_t>(*count));
  return nullptr;
}

napi_value Close(const Call& call) {
  call.reactor.Close();
  return nullptr;
}

constexpr Method kMethods[] = {
    {"take", Run<Take, false>},
    {"fdOf", Run<FdOf, true>},
    {"startTls", Run<StartTls, true>},
    {"peerChain", Run<PeerChain, true>},
    {"flush", Run<Flush, false>},
    {"close", Run<Close, false>},
};

}  // namespace

napi_value CreateReactor(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  std::optional<Bytes> memory = RequireBytes(env, arguments.values[0], "memory");
  std::optional<Bytes> given = RequireBytes(env, arguments.values[1], "sizes");
  if (!memory || !given) return nullptr;
  // What can be taken away from under us is refused, by taking it away.
  if (napi_detach_arraybuffer(env, memory->buffer) == napi_ok) {
    return ThrowType(env, "memory", "of a kind that nobody can detach");
  }
  ReactorSizes sizes = {};
  if (given->length == sizeof(sizes)) memcpy(&sizes, given->data, sizeof(sizes));
  if (!AreUsable(sizes, memory->length)) return ThrowType(env, "sizes", "within the memory");
  if (TypeOf(env, arguments.values[2]) != napi_function) {
    return ThrowType(env, "turn", "a function");
  }
  if (EnvironmentOf(env)->reactor != nullptr) return ThrowText(env, "this thread has a reactor");
  auto* reactor = new (std::nothrow) Reactor;
  const int error =
      reactor == nullptr ? ENOMEM : reactor->Open(env, sizes, *memory, arguments.values[2]);
  if (error != 0) {
    delete reactor;
    return ThrowErrno(env, error, "createReactor");
  }
  napi_value result = NewObject(env);
  AddMethods(env, result, kMethods);
  return result;
}

}  // namespace ztunnel
