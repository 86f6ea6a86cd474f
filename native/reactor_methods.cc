// What JavaScript calls, by src/net/reactor.ts. Answers as system calls do, -1 with errno.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "reactor.h"

namespace ztunnel {
namespace {

// What the arena must hold beside a read: headroom, alignment, a record that came in pieces.
constexpr size_t kArenaSpareBytes = 32 << 10;
constexpr size_t kEventsMin = 16;

// Whether everything stays inside the memory: numbers first, the arena with its scratch at the end;
// src/net/reactor-memory.ts tells what is wrong with an option.
bool AreUsable(const ReactorSizes& sizes, size_t memory_bytes) {
  const size_t largest = std::max({sizes.arena_bytes, sizes.scratch_bytes, sizes.events_max,
                                   sizes.operations_max, sizes.connections_max});
  const size_t longest = std::max(sizes.plain_read_bytes, sizes.cipher_read_bytes);
  const size_t numbers =
      4 * (sizes.events_max + sizes.operations_max) + 2 * (sizes.connections_max + 1);
  return largest <= memory_bytes && sizes.connections_max <= UINT16_MAX &&
         sizeof(int32_t) * numbers + sizes.arena_bytes + sizes.scratch_bytes <= memory_bytes &&
         sizes.events_max >= kEventsMin && longest <= sizes.arena_bytes &&
         kArenaSpareBytes <= sizes.arena_bytes - longest;
}

Connection* Find(napi_env env, int id) {
  const Reactor* reactor = EnvironmentOf(env)->reactor;
  return reactor == nullptr ? nullptr : reactor->Find(id);
}

}  // namespace

int CreateReactor(napi_env env, Bytes memory, Bytes given, napi_value turn) {
  ReactorSizes sizes = {};
  if (given.length == sizeof(sizes)) memcpy(&sizes, given.data, sizeof(sizes));
  // What can be taken away from under us is refused, by taking it away.
  if (napi_detach_arraybuffer(env, memory.buffer) == napi_ok || !AreUsable(sizes, memory.length) ||
      TypeOf(env, turn) != napi_function) {
    return FailWith(EINVAL);
  }
  if (EnvironmentOf(env)->reactor != nullptr) return FailWith(EEXIST);
  auto* reactor = new (std::nothrow) Reactor;
  const int error = reactor == nullptr ? ENOMEM : reactor->Open(env, sizes, memory, turn);
  if (error == 0) return 0;
  delete reactor;
  return FailWith(error);
}

int CloseReactor(napi_env env) {
  if (EnvironmentOf(env)->reactor != nullptr) EnvironmentOf(env)->reactor->Close();
  return 0;
}

// Answers the new id; the descriptor is the reactor's on success only.
int ReactorTake(napi_env env, int fd, int kind) {
  Reactor* reactor = EnvironmentOf(env)->reactor;
  if (reactor == nullptr || (kind & ~Connection::kKinds) != 0) return FailWith(EINVAL);
  const Connection* connection = reactor->Add(fd, static_cast<unsigned>(kind));
  return connection == nullptr ? -1 : connection->id;
}

int ReactorFdOf(napi_env env, int id) {
  const Connection* connection = Find(env, id);
  return connection == nullptr ? FailWith(EBADF) : connection->fd;
}

// Answers one of OpenSSL's errors when that refuses.
int ReactorStartTls(napi_env env, int id, napi_value object, int is_server) {
  Connection* connection = Find(env, id);
  SSL_CTX* context = TlsContextOf(env, object);
  if (connection == nullptr) return FailWith(EBADF);
  if (context == nullptr) return FailWith(EINVAL);
  constexpr unsigned kUnfit = Connection::kListener | Connection::kEnding | Connection::kAtEnd;
  if (connection->ssl != nullptr || connection->Is(kUnfit) || connection->queue.Size() > 0) {
    return FailWith(EISCONN);
  }
  return connection->reactor->StartTls(connection, context, is_server != 0) ? 0 : TakeTlsError();
}

// One after the other: each certificate says its own length. Answers that of all.
int ReactorPeerChain(napi_env env, int id, Bytes into) {
  const Connection* connection = Find(env, id);
  if (connection == nullptr) return FailWith(EBADF);
  const bool is_open = connection->ssl != nullptr && !connection->Is(Connection::kHandshake);
  auto* chain = is_open ? SSL_get0_verified_chain(connection->ssl.get()) : nullptr;
  size_t length = 0;
  for (int i = 0; i < sk_X509_num(chain); ++i) {
    uint8_t* at = into.data + length;
    length += static_cast<size_t>(std::max(i2d_X509(sk_X509_value(chain, i), nullptr), 0));
    if (length <= into.length) i2d_X509(sk_X509_value(chain, i), &at);
  }
  return static_cast<int>(length);
}

int ReactorFlush(napi_env env, int operation_count) {
  Reactor* reactor = EnvironmentOf(env)->reactor;
  const bool is_done =
      reactor != nullptr && reactor->Perform(static_cast<uint32_t>(operation_count));
  return is_done ? 0 : FailWith(EINVAL);
}

}  // namespace ztunnel
