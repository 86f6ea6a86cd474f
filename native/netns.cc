#include "netns.h"

#include <fcntl.h>
#include <sched.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace ztunnel {

UniqueFd OpenHomeNetns() {
  return UniqueFd(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
}

bool EnterNetns(int netns) { return setns(netns, CLONE_NEWNET) == 0; }

void ReturnToNetns(int home) {
  int error = errno;
  if (setns(home, CLONE_NEWNET) != 0) {
    fprintf(stderr, "ztunnel: can't return to the home network namespace: %s\n", strerror(errno));
    abort();
  }
  errno = error;
}

}  // namespace ztunnel
