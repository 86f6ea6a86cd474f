#include "address.h"

#include <uv.h>

#include <cerrno>

namespace ztunnel {

bool ParseAddress(int family, const std::string& ip, uint16_t port, Address* address) {
  if (family == AF_INET) {
    address->length = sizeof(sockaddr_in);
    return uv_ip4_addr(ip.c_str(), port, reinterpret_cast<sockaddr_in*>(&address->storage)) == 0;
  }
  address->length = sizeof(sockaddr_in6);
  return uv_ip6_addr(ip.c_str(), port, reinterpret_cast<sockaddr_in6*>(&address->storage)) == 0;
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
