// The memory of a process that holds private keys is nobody else's.
#include <sys/prctl.h>

#include "functions.h"

namespace ztunnel {

// Unlike RLIMIT_CORE this holds where cores are piped to a collector, too, and against debuggers
// without privileges.
int ForbidMemoryDumps() { return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); }

}  // namespace ztunnel
