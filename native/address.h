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

// Of either family. `where` stands before the names in errors. Answers nullopt with an exception.
std::optional<Address> RequireAddress(napi_env env, napi_value ip, napi_value port,
                                      const std::string& where);

// Gives IPv4-mapped IPv6 as IPv4. Throws EAFNOSUPPORT for any other family.
napi_value FromAddress(napi_env env, const Address& address);

}  // namespace ztunnel
