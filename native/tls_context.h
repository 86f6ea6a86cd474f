// TLS identities: a certificate chain with its key, and the roots that peers are judged by.
#pragma once

#include <string>

#include "openssl_abi.h"
#include "owned.h"

namespace ztunnel {

struct TlsContextOptions {
  std::string chain_pem, key_pem, roots_pem, groups;
  bool tls12 = false;
};

using TlsContext = Owned<SSL_CTX, SSL_CTX_free>;

// Returns nullptr on failure; `problem` tells the option and OpenSSL's words about it.
TlsContext MakeTlsContext(const TlsContextOptions& options, std::string* problem);

}  // namespace ztunnel
