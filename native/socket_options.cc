#include "socket_options.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

#include <cerrno>
#include <climits>

#include "address.h"

namespace ztunnel {
namespace {

// What the kernel calls an option of ours.
struct Option {
  const char* property;
  napi_valuetype type;
  int level;
  int name;
  const char* text;
  const char* capability;
};

constexpr Option kLive[] = {
    {"mark", napi_number, SOL_SOCKET, SO_MARK, "SO_MARK", "CAP_NET_ADMIN"},
    {"noDelay", napi_boolean, SOL_TCP, TCP_NODELAY, "TCP_NODELAY", nullptr},
    {"userTimeoutMs", napi_number, SOL_TCP, TCP_USER_TIMEOUT, "TCP_USER_TIMEOUT", nullptr},
};
constexpr Option kKeepAlive[] = {
    {"idleSeconds", napi_number, SOL_TCP, TCP_KEEPIDLE, "TCP_KEEPIDLE", nullptr},
    {"intervalSeconds", napi_number, SOL_TCP, TCP_KEEPINTVL, "TCP_KEEPINTVL", nullptr},
    {"probes", napi_number, SOL_TCP, TCP_KEEPCNT, "TCP_KEEPCNT", nullptr},
};
constexpr Option kBind[] = {
    {"reusePort", napi_boolean, SOL_SOCKET, SO_REUSEPORT, "SO_REUSEPORT", nullptr},
    {"reuseAddress", napi_boolean, SOL_SOCKET, SO_REUSEADDR, "SO_REUSEADDR", nullptr},
    {"freebind", napi_boolean, SOL_IP, IP_FREEBIND, "IP_FREEBIND", nullptr},
    {"bindAddressNoPort", napi_boolean, SOL_IP, IP_BIND_ADDRESS_NO_PORT, "IP_BIND_ADDRESS_NO_PORT",
     nullptr},
};
constexpr Option kBindIpv6[] = {
    {"freebind", napi_boolean, SOL_IPV6, IPV6_FREEBIND, "IPV6_FREEBIND", nullptr},
};

bool Set(int fd, int level, int name, unsigned value) {
  return setsockopt(fd, level, name, &value, sizeof(value)) == 0;
}

template <size_t N>
bool Apply(napi_env env, int fd, napi_value options, const Option (&table)[N]) {
  for (const Option& option : table) {
    napi_value given = Property(env, options, option.property);
    std::optional<int64_t> value = option.type == napi_boolean
                                       ? ReadFlag(env, given, option.property)
                                       : ReadInteger(env, given, option.property, UINT_MAX);
    if (Pending(env)) return false;
    if (value && !Set(fd, option.level, option.name, static_cast<unsigned>(*value))) {
      ThrowErrno(env, errno, "setsockopt", option.text, option.capability);
      return false;
    }
  }
  return true;
}

}  // namespace

bool ApplyLiveOptions(napi_env env, int fd, napi_value options) {
  if (!Apply(env, fd, options, kLive)) return false;
  napi_value keep_alive = Property(env, options, "keepAlive");
  if (TypeOf(env, keep_alive) == napi_undefined) return !Pending(env);
  if (!RequireObject(env, keep_alive, "keepAlive")) return false;
  if (!Set(fd, SOL_SOCKET, SO_KEEPALIVE, 1)) {
    ThrowErrno(env, errno, "setsockopt", "SO_KEEPALIVE");
    return false;
  }
  return Apply(env, fd, keep_alive, kKeepAlive);
}

bool ApplyBindOptions(napi_env env, int fd, int family, napi_value options, bool* transparent) {
  if (!Apply(env, fd, options, kBind)) return false;
  if (family == AF_INET6 && !Apply(env, fd, options, kBindIpv6)) return false;

  std::optional<bool> dual_stack = ReadFlag(env, Property(env, options, "dualStack"), "dualStack");
  if (dual_stack && !Set(fd, SOL_IPV6, IPV6_V6ONLY, !*dual_stack)) {
    ThrowErrno(env, errno, "setsockopt", "IPV6_V6ONLY");
  }

  napi_value given = Property(env, options, "transparent");
  std::optional<std::string> wanted = ReadText(env, given, "transparent");
  if (Pending(env)) return false;
  if (!wanted) return true;
  if (*wanted != "required" && *wanted != "try") {
    ThrowType(env, "transparent", "\"required\" or \"try\"");
    return false;
  }
  *transparent = Set(fd, SOL_IP, IP_TRANSPARENT, 1) &&
                 (family != AF_INET6 || Set(fd, SOL_IPV6, IPV6_TRANSPARENT, 1));
  if (!*transparent && *wanted == "required") {
    ThrowErrno(env, errno, "setsockopt", "IP_TRANSPARENT", "CAP_NET_ADMIN or CAP_NET_RAW");
    return false;
  }
  return true;
}

bool BindAndListen(napi_env env, int fd, int family, napi_value options) {
  napi_value bind_to = Property(env, options, "bind");
  if (TypeOf(env, bind_to) != napi_undefined) {
    if (!RequireObject(env, bind_to, "bind")) return false;
    std::optional<std::string> ip = RequireText(env, Property(env, bind_to, "ip"), "bind.ip");
    std::optional<int64_t> port =
        ReadInteger(env, Property(env, bind_to, "port"), "bind.port", UINT16_MAX);
    if (!ip || !port) {
      ThrowType(env, "bind.port", "an integer from 0 to 65535");
      return false;
    }
    Address address;
    if (!ParseAddress(family, *ip, static_cast<uint16_t>(*port), &address)) {
      ThrowType(env, "bind.ip", "an address of the socket's family");
      return false;
    }
    if (bind(fd, address.Raw(), address.length) != 0) {
      ThrowErrno(env, errno, "bind", *ip + " port " + std::to_string(*port),
                 "CAP_NET_BIND_SERVICE");
      return false;
    }
  }
  napi_value given = Property(env, options, "listenBacklog");
  std::optional<int64_t> backlog = ReadInteger(env, given, "listenBacklog", INT_MAX);
  if (backlog && listen(fd, static_cast<int>(*backlog)) != 0) ThrowErrno(env, errno, "listen");
  return !Pending(env);
}

}  // namespace ztunnel
