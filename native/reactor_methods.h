// How JavaScript's calls find their reactor and connection.
#pragma once

#include <climits>

#include "napi_support.h"
#include "reactor.h"

namespace ztunnel {

// The reactor whose method was called. Answers nullptr with an exception.
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

void AddMethod(napi_env env, napi_value object, Reactor* reactor, const Method& method);
// Those about one connection.
void AddConnectionMethods(napi_env env, napi_value object, Reactor* reactor);

}  // namespace ztunnel
