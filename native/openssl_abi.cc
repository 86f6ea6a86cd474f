#include "openssl_abi.h"

namespace ztunnel {

std::string OpenSslProblem() {
  const char* missing = nullptr;
#define ZTUNNEL_CHECK(name) \
  if (&name == nullptr) missing = #name;
  ZTUNNEL_OPENSSL_FUNCTIONS(ZTUNNEL_CHECK)
#undef ZTUNNEL_CHECK
  const char* advice = "; run it with a Node from nodejs.org or a distribution, version 20 or later";
  if (missing != nullptr) {
    return std::string("this Node offers no OpenSSL 3 (no ") + missing + ")" + advice;
  }
  if (OpenSSL_version_num() >> 28 != 3) {
    return std::string("this Node carries ") + OpenSSL_version(OPENSSL_VERSION) +
           ", but tunnels need OpenSSL 3" + advice;
  }
  return "";
}

std::string TakeOpenSslError() {
  const char* reason = ERR_reason_error_string(ERR_peek_error());
  ERR_clear_error();
  return reason == nullptr ? "unknown TLS failure" : reason;
}

}  // namespace ztunnel
