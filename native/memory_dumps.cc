// The memory of a process that holds private keys is nobody else's.
#include <sys/prctl.h>

#include <cerrno>

#include "functions.h"
#include "napi_support.h"

namespace ztunnel {

// Unlike RLIMIT_CORE this holds where cores are piped to a collector, too, and against debuggers
// without privileges.
napi_value ForbidMemoryDumps(napi_env env, napi_callback_info) {
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) ThrowErrno(env, errno, "prctl");
  return nullptr;
}

}  // namespace ztunnel
