// Socket addresses and their { ip, port } form.
#pragma once

#include <sys/socket.h>

#include <string>

#include "napi_support.h"

namespace ztunnel {

struct Address {
  sockaddr_storage storage = {};
  socklen_t length = sizeof(sockaddr_storage);

  sockaddr* Raw() { return reinterpret_cast<sockaddr*>(&storage); }
};

// Returns false when the text is no address of that family (AF_INET or AF_INET6).
bool ParseAddress(int family, const std::string& ip, uint16_t port, Address* address);

// Gives IPv4-mapped IPv6 as IPv4. Throws EAFNOSUPPORT for any other family.
napi_value FromAddress(napi_env env, const Address& address);

}  // namespace ztunnel
