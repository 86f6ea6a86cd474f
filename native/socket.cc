// Sockets with their options, and files, opened inside a namespace; NativeSocketOptions in src/net/native.ts.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/socket.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "address.h"
#include "functions.h"

namespace ztunnel {
namespace {

struct Choice {
  const char* text;
  int value;
};

constexpr Choice kFamilies[] = {
    {"ipv4", AF_INET}, {"ipv6", AF_INET6}, {"packet", AF_PACKET}, {"netlink", AF_NETLINK}};
constexpr Choice kTypes[] = {{"stream", SOCK_STREAM}, {"dgram", SOCK_DGRAM}, {"raw", SOCK_RAW}};
constexpr Choice kTransparency[] = {{"required", true}, {"try", false}};

// What the kernel calls an option of ours.
struct Option {
  const char* property;
  napi_valuetype type;
  int level;
  int name;
  const char* text;
  const char* capability = nullptr;
  // 1: the kernel's flag says the opposite.
  unsigned flip = 0;
};

#define KERNEL(level, name) level, name, #name
constexpr Option kOptions[] = {
    {"mark", napi_number, KERNEL(SOL_SOCKET, SO_MARK), "CAP_NET_ADMIN"},
    {"noDelay", napi_boolean, KERNEL(SOL_TCP, TCP_NODELAY)},
    {"userTimeoutMs", napi_number, KERNEL(SOL_TCP, TCP_USER_TIMEOUT)},
    {"keepAlive", napi_boolean, KERNEL(SOL_SOCKET, SO_KEEPALIVE)},
    {"keepAliveIdleSeconds", napi_number, KERNEL(SOL_TCP, TCP_KEEPIDLE)},
    {"keepAliveIntervalSeconds", napi_number, KERNEL(SOL_TCP, TCP_KEEPINTVL)},
    {"keepAliveProbes", napi_number, KERNEL(SOL_TCP, TCP_KEEPCNT)},
    {"reusePort", napi_boolean, KERNEL(SOL_SOCKET, SO_REUSEPORT)},
    {"reuseAddress", napi_boolean, KERNEL(SOL_SOCKET, SO_REUSEADDR)},
    {"bindAddressNoPort", napi_boolean, KERNEL(SOL_IP, IP_BIND_ADDRESS_NO_PORT)},
    {"dualStack", napi_boolean, KERNEL(SOL_IPV6, IPV6_V6ONLY), nullptr, 1},
};
#undef KERNEL

bool Set(int fd, int level, int name, unsigned value) {
  return setsockopt(fd, level, name, &value, sizeof(value)) == 0;
}

// Answers nullopt for `undefined`, and with an exception for any other text.
template <size_t N>
std::optional<int> Choose(napi_env env, napi_value options, const char* property,
                          const Choice (&choices)[N], const char* expected) {
  std::optional<std::string> text = ReadText(env, Property(env, options, property), property);
  for (const Choice& choice : choices) {
    if (text == choice.text) return choice.value;
  }
  if (text) ThrowType(env, property, expected);
  return std::nullopt;
}

// What `make` opens in the namespace, if one is given. Throws only where that can't be entered;
// errno is what `make` left.
template <typename Make>
UniqueFd InNamespace(napi_env env, std::optional<int64_t> netns, Make make) {
  Environment* environment = nullptr;
  napi_get_instance_data(env, reinterpret_cast<void**>(&environment));
  if (netns && setns(static_cast<int>(*netns), CLONE_NEWNET) != 0) {
    ThrowErrno(env, errno, "setns", "fd " + std::to_string(*netns), "CAP_SYS_ADMIN");
    return UniqueFd();
  }
  UniqueFd fd(make());
  const int error = errno;
  // A thread that can't return must not run JavaScript.
  if (netns && setns(environment->home.Get(), CLONE_NEWNET) != 0) {
    fprintf(stderr, "ztunnel: can't return to the home network namespace: %s\n", strerror(errno));
    abort();
  }
  errno = error;
  return fd;
}

// The steps to a socket throw on failure; who calls them asks Pending().

UniqueFd MakeSocket(napi_env env, napi_value options, int family) {
  constexpr char kExpected[] = "\"stream\", \"dgram\" or \"raw\"";
  std::optional<int> type = Choose(env, options, "type", kTypes, kExpected);
  auto protocol = ReadInteger(env, Property(env, options, "protocol"), "protocol", UINT16_MAX);
  auto netns = ReadInteger(env, Property(env, options, "netnsFd"), "netnsFd", INT_MAX);
  if (!type) ThrowType(env, "type", kExpected);
  if (Pending(env)) return UniqueFd();

  if (family == AF_PACKET) protocol = htons(static_cast<uint16_t>(protocol.value_or(0)));
  const int raw_type = *type | SOCK_NONBLOCK | SOCK_CLOEXEC;
  UniqueFd fd = InNamespace(
      env, netns, [&] { return socket(family, raw_type, static_cast<int>(protocol.value_or(0))); });
  if (!fd.IsOpen() && !Pending(env)) ThrowErrno(env, errno, "socket", "", "CAP_NET_RAW");
  return fd;
}

void ApplyOptions(napi_env env, int fd, napi_value options) {
  for (const Option& option : kOptions) {
    napi_value given = Property(env, options, option.property);
    std::optional<int64_t> value = option.type == napi_boolean
                                       ? ReadFlag(env, given, option.property)
                                       : ReadInteger(env, given, option.property, UINT_MAX);
    if (Pending(env)) return;
    if (!value) continue;
    if (!Set(fd, option.level, option.name, static_cast<unsigned>(*value) ^ option.flip)) {
      ThrowErrno(env, errno, "setsockopt", option.text, option.capability);
      return;
    }
  }
}

// Answers whether IP_TRANSPARENT is set.
bool BecomeTransparent(napi_env env, int fd, int family, napi_value options) {
  std::optional<int> required =
      Choose(env, options, "transparent", kTransparency, "\"required\" or \"try\"");
  if (!required) return false;
  if (Set(fd, SOL_IP, IP_TRANSPARENT, 1) &&
      (family != AF_INET6 || Set(fd, SOL_IPV6, IPV6_TRANSPARENT, 1))) {
    return true;
  }
  if (*required) {
    ThrowErrno(env, errno, "setsockopt", "IP_TRANSPARENT", "CAP_NET_ADMIN or CAP_NET_RAW");
  }
  return false;
}

void Bind(napi_env env, int fd, int family, napi_value to) {
  if (TypeOf(env, to) == napi_undefined || !RequireObject(env, to, "bind")) return;
  napi_value ip = Property(env, to, "ip");
  auto address = RequireAddress(env, ip, Property(env, to, "port"), "bind.");
  if (!address) return;
  if (address->storage.ss_family != family) {
    ThrowType(env, "bind.ip", "an address of the socket's family");
  } else if (bind(fd, address->Raw(), address->length) != 0) {
    const int error = errno;
    const int port = ntohs(reinterpret_cast<sockaddr_in*>(address->Raw())->sin_port);
    ThrowErrno(env, error, "bind", *ReadText(env, ip, "ip") + " port " + std::to_string(port),
               "CAP_NET_BIND_SERVICE");
  }
}

void Listen(napi_env env, int fd, napi_value options) {
  auto backlog = ReadInteger(env, Property(env, options, "listenBacklog"), "listenBacklog", INT_MAX);
  auto migration =
      ReadInteger(env, Property(env, options, "queueMigrationFd"), "queueMigrationFd", INT_MAX);
  if (!backlog || Pending(env)) return;
  if (listen(fd, static_cast<int>(*backlog)) != 0) {
    ThrowErrno(env, errno, "listen");
    // Only now it is one of its port's sockets, all of which have the program from here on.
  } else if (migration && !Set(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF,
                               static_cast<unsigned>(*migration))) {
    ThrowErrno(env, errno, "setsockopt", "SO_ATTACH_REUSEPORT_EBPF");
  }
}

}  // namespace

napi_value SocketInNamespace(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  napi_value options = arguments.values[0];
  if (!RequireObject(env, options, "options")) return nullptr;
  constexpr char kExpected[] = "\"ipv4\", \"ipv6\", \"packet\" or \"netlink\"";
  std::optional<int> family = Choose(env, options, "family", kFamilies, kExpected);
  if (!family) return ThrowType(env, "family", kExpected);

  UniqueFd fd = MakeSocket(env, options, *family);
  bool transparent = false;
  if (!Pending(env)) ApplyOptions(env, fd.Get(), options);
  if (!Pending(env)) transparent = BecomeTransparent(env, fd.Get(), *family, options);
  if (!Pending(env)) Bind(env, fd.Get(), *family, Property(env, options, "bind"));
  if (!Pending(env)) Listen(env, fd.Get(), options);
  if (Pending(env)) return nullptr;

  napi_value result = NewObject(env);
  SetProperty(env, result, "transparent", FromFlag(env, transparent));
  SetProperty(env, result, "fd", FromFd(env, std::move(fd)));
  return result;
}

napi_value OpenInNamespace(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  std::optional<std::string> path = RequireText(env, arguments.values[0], "path");
  auto netns = ReadInteger(env, arguments.values[1], "netnsFd", INT_MAX);
  if (Pending(env)) return nullptr;
  UniqueFd fd = InNamespace(env, netns, [&] { return open(path->c_str(), O_RDONLY | O_CLOEXEC); });
  if (Pending(env)) return nullptr;
  return fd.IsOpen() ? FromFd(env, std::move(fd)) : ThrowErrno(env, errno, "open", *path);
}

}  // namespace ztunnel
