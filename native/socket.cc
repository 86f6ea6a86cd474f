#include <arpa/inet.h>
#include <sys/socket.h>

#include <cerrno>

#include "functions.h"
#include "napi_support.h"
#include "netns.h"
#include "socket_options.h"

namespace ztunnel {
namespace {

struct Kind {
  int family;
  int type;
  int protocol;
};

std::optional<Kind> ReadKind(napi_env env, napi_value options) {
  std::optional<std::string> family = RequireText(env, Property(env, options, "family"), "family");
  std::optional<std::string> type = RequireText(env, Property(env, options, "type"), "type");
  std::optional<int64_t> protocol =
      ReadInteger(env, Property(env, options, "protocol"), "protocol", UINT16_MAX);
  if (!family || !type || Pending(env)) return std::nullopt;

  Kind kind = {};
  if (*family == "ipv4") kind.family = AF_INET;
  else if (*family == "ipv6") kind.family = AF_INET6;
  else if (*family == "packet") kind.family = AF_PACKET;
  else ThrowType(env, "family", "\"ipv4\", \"ipv6\" or \"packet\"");

  if (*type == "stream") kind.type = SOCK_STREAM;
  else if (*type == "dgram") kind.type = SOCK_DGRAM;
  else if (*type == "raw") kind.type = SOCK_RAW;
  else ThrowType(env, "type", "\"stream\", \"dgram\" or \"raw\"");

  kind.type |= SOCK_NONBLOCK | SOCK_CLOEXEC;
  if (kind.family == AF_PACKET) kind.protocol = htons(static_cast<uint16_t>(protocol.value_or(0)));
  if (Pending(env)) return std::nullopt;
  return kind;
}

// Throws and returns one that is not open on failure.
UniqueFd MakeSocket(napi_env env, const Kind& kind, std::optional<int> netns) {
  Environment* environment = nullptr;
  napi_get_instance_data(env, reinterpret_cast<void**>(&environment));
  if (netns && !EnterNetns(*netns)) {
    ThrowErrno(env, errno, "setns", "fd " + std::to_string(*netns), "CAP_SYS_ADMIN");
    return UniqueFd();
  }
  UniqueFd fd(socket(kind.family, kind.type, kind.protocol));
  if (netns) ReturnToNetns(environment->home.Get());
  if (!fd.IsOpen()) ThrowErrno(env, errno, "socket", "", "CAP_NET_RAW");
  return fd;
}

}  // namespace

napi_value SocketInNamespace(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  napi_value options = arguments.values[0];
  if (!RequireObject(env, options, "options")) return nullptr;
  std::optional<Kind> kind = ReadKind(env, options);
  if (!kind) return nullptr;
  napi_value given = Property(env, options, "netnsFd");
  std::optional<int> netns;
  if (TypeOf(env, given) != napi_undefined) netns = RequireFd(env, given, "netnsFd");
  if (Pending(env)) return nullptr;

  UniqueFd fd = MakeSocket(env, *kind, netns);
  bool transparent = false;
  if (!fd.IsOpen() || !ApplyLiveOptions(env, fd.Get(), options) ||
      !ApplyBindOptions(env, fd.Get(), kind->family, options, &transparent) ||
      !BindAndListen(env, fd.Get(), kind->family, options)) {
    return nullptr;
  }

  napi_value result = nullptr, is_transparent = nullptr;
  napi_create_object(env, &result);
  napi_get_boolean(env, transparent, &is_transparent);
  SetProperty(env, result, "transparent", is_transparent);
  SetProperty(env, result, "fd", FromFd(env, std::move(fd)));
  return result;
}

napi_value SetSocketOptions(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  std::optional<int> fd = RequireFd(env, arguments.values[0], "fd");
  if (!fd || !RequireObject(env, arguments.values[1], "options")) return nullptr;
  ApplyLiveOptions(env, *fd, arguments.values[1]);
  return nullptr;
}

}  // namespace ztunnel
