// TLS identities: a certificate chain with its key, and the roots that peers are judged by.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "openssl_abi.h"

namespace ztunnel {

struct TlsContextOptions {
  std::string chain_pem, key_pem, roots_pem, groups;
  bool tls12 = false;
};

// Contexts by number. A number is never used again.
class TlsContexts {
 public:
  TlsContexts() = default;
  TlsContexts(const TlsContexts&) = delete;
  TlsContexts& operator=(const TlsContexts&) = delete;
  ~TlsContexts();

  // Returns 0 on failure; `problem` tells the option and OpenSSL's words about it.
  uint32_t Make(const TlsContextOptions& options, std::string* problem);
  // Returns nullptr when there is none of that number.
  SSL_CTX* Find(uint32_t number) const;
  // Tunnels keep theirs. Returns false when there is none of that number.
  bool Free(uint32_t number);

 private:
  struct Entry {
    uint32_t number;
    SSL_CTX* context;
  };

  Entry* entries_ = nullptr;
  size_t count_ = 0;
  size_t capacity_ = 0;
  uint32_t last_number_ = 0;
};

}  // namespace ztunnel
