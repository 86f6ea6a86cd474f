#include "address.h"

#include <uv.h>

#include <cerrno>

namespace ztunnel {

std::optional<Address> RequireAddress(napi_env env, napi_value ip, napi_value port,
                                      const std::string& where) {
  auto text = RequireText(env, ip, (where + "ip").c_str());
  auto number = RequireInteger(env, port, (where + "port").c_str(), UINT16_MAX);
  if (!text || !number) return std::nullopt;
  Address address;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
  address.length = sizeof(sockaddr_in);
  if (uv_ip4_addr(text->c_str(), static_cast<int>(*number), v4) == 0) return address;
  address.length = sizeof(sockaddr_in6);
  if (uv_ip6_addr(text->c_str(), static_cast<int>(*number), v6) == 0) return address;
  ThrowType(env, where + "ip", "an IP address");
  return std::nullopt;
}

napi_value FromAddress(napi_env env, const Address& address) {
  char text[INET6_ADDRSTRLEN] = "";
  // The port is at the same place in both families.
  const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address.storage);
  if (address.storage.ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
    // The last four bytes of a mapped address are the IPv4 address.
    uv_inet_ntop(AF_INET, v6->sin6_addr.s6_addr + 12, text, sizeof(text));
  } else if (uv_ip_name(reinterpret_cast<const sockaddr*>(v6), text, sizeof(text)) != 0) {
    return ThrowErrno(env, EAFNOSUPPORT, "getsockname");
  }
  napi_value result = NewObject(env);
  SetProperty(env, result, "ip", FromText(env, text));
  SetProperty(env, result, "port", FromInteger(env, ntohs(v6->sin6_port)));
  return result;
}

}  // namespace ztunnel
