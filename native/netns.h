// Visits to another network namespace, as short as one socket() call.
#pragma once

#include "unique_fd.h"

namespace ztunnel {

// The calling thread's namespace; not open on failure, with errno set.
UniqueFd OpenHomeNetns();

// Moves the calling thread. Returns false on failure, with errno set.
bool EnterNetns(int netns);

// Keeps errno. A thread that can't return must not run JavaScript: failing aborts the process.
void ReturnToNetns(int home);

}  // namespace ztunnel
