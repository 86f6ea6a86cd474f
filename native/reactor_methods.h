// How JavaScript's calls find their reactor and connection.
#pragma once

#include <climits>

#include "napi_support.h"
#include "reactor.h"

namespace ztunnel {

// Tells our objects from those of others when a method is called on something else.
inline constexpr napi_type_tag kReactorTag = {0x7a74756e6e656c52, 0x656163746f722e31};

// The reactor that a method was called on. Answers nullptr with an exception.
Reactor* ReactorOf(napi_env env, const Arguments& arguments);

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

// Methods about one connection: listen, adopt, connect, release, fdOf, startTls, peerLeaf, alpn,
// errorText.
void AddConnectionMethods(napi_env env, napi_value reactor);

}  // namespace ztunnel
