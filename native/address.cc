#include "address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <cerrno>
#include <cstring>

namespace ztunnel {

bool ParseAddress(int family, const std::string& ip, uint16_t port, Address* address) {
  address->storage.ss_family = static_cast<sa_family_t>(family);
  if (family == AF_INET) {
    auto* v4 = reinterpret_cast<sockaddr_in*>(&address->storage);
    v4->sin_port = htons(port);
    address->length = sizeof(*v4);
    return inet_pton(AF_INET, ip.c_str(), &v4->sin_addr) == 1;
  }
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address->storage);
  v6->sin6_port = htons(port);
  address->length = sizeof(*v6);
  return inet_pton(AF_INET6, ip.c_str(), &v6->sin6_addr) == 1;
}

napi_value FromAddress(napi_env env, const Address& address) {
  char text[INET6_ADDRSTRLEN] = "";
  uint16_t port = 0;
  if (address.storage.ss_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&address.storage);
    inet_ntop(AF_INET, &v4->sin_addr, text, sizeof(text));
    port = ntohs(v4->sin_port);
  } else if (address.storage.ss_family == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address.storage);
    // The last four bytes of a mapped address are the IPv4 address.
    if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
      inet_ntop(AF_INET, v6->sin6_addr.s6_addr + 12, text, sizeof(text));
    } else {
      inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof(text));
    }
    port = ntohs(v6->sin6_port);
  } else {
    return ThrowErrno(env, EAFNOSUPPORT, "getsockname");
  }
  napi_value ip = nullptr, result = nullptr;
  napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &ip);
  napi_create_object(env, &result);
  SetProperty(env, result, "ip", ip);
  SetProperty(env, result, "port", FromInteger(env, port));
  return result;
}

}  // namespace ztunnel
