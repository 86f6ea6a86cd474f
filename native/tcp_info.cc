#include "tcp_info.h"

// Not <netinet/tcp.h>, whose struct ends before the counters of bytes.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>

#include "napi_support.h"

namespace ztunnel {
namespace {

struct Counter {
  const char* name;
  uint64_t value;
};

}  // namespace

napi_value ReadTcpInfo(napi_env env, int fd) {
  tcp_info kernel = {};
  socklen_t length = sizeof(kernel);
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &kernel, &length) != 0) {
    return ThrowErrno(env, errno, "getsockopt", "TCP_INFO");
  }
  const Counter counters[] = {
      {"roundTripUs", kernel.tcpi_rtt},
      {"roundTripVariationUs", kernel.tcpi_rttvar},
      {"roundTripMinUs", kernel.tcpi_min_rtt},
      {"windowSegments", kernel.tcpi_snd_cwnd},
      {"segmentBytes", kernel.tcpi_snd_mss},
      {"unackedSegments", kernel.tcpi_unacked},
      {"lostSegments", kernel.tcpi_lost},
      {"retransmittedSegments", kernel.tcpi_total_retrans},
      {"ackedBytes", kernel.tcpi_bytes_acked},
      {"receivedBytes", kernel.tcpi_bytes_received},
  };
  napi_value result = NewObject(env);
  for (const Counter& counter : counters) {
    SetProperty(env, result, counter.name, FromInteger(env, static_cast<int64_t>(counter.value)));
  }
  return result;
}

}  // namespace ztunnel
