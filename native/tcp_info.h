// What the kernel knows about a TCP connection.
#pragma once

#include <node_api.h>

namespace ztunnel {

// An object; src/net/reactor.ts tells its fields. Answers nullptr with an exception on failure.
napi_value ReadTcpInfo(napi_env env, int fd);

}  // namespace ztunnel
