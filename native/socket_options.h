// The options of NativeSocketOptions in src/net/native.ts, by name.
#pragma once

#include "napi_support.h"

namespace ztunnel {

// Options that any TCP socket takes at any time: mark, noDelay, userTimeoutMs, keepAlive.
// Each returns false after it has thrown.
bool ApplyLiveOptions(napi_env env, int fd, napi_value options);

// Options that must be set before bind. `transparent` tells whether IP_TRANSPARENT is set.
bool ApplyBindOptions(napi_env env, int fd, int family, napi_value options, bool* transparent);

// bind() and listen() when asked for.
bool BindAndListen(napi_env env, int fd, int family, napi_value options);

}  // namespace ztunnel
