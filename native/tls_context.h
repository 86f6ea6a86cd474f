// OpenSSL as Node carries it, and TLS identities: a certificate chain with its key, and the roots that
// peers are judged by.
//
// Nothing is linked: the loader finds each function in the running process when it loads the addon, and
// names what is missing. Only functions are used, no fields: the types are opaque and the ABI is
// stable within a major version.
#pragma once

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "napi_support.h"
#include "owned.h"

static_assert(OPENSSL_VERSION_MAJOR == 3, "headers of OpenSSL 3 are needed");

// The public interface can send no alert but close_notify. This function is in every Node that
// carries its own OpenSSL 3, unchanged since 1.0; where OpenSSL is a shared library it is hidden.
extern "C" int ssl3_send_alert(SSL* ssl, int level, int description) __attribute__((weak));

namespace ztunnel {

// Longest plaintext of a record that we send: four of them, whatever the size of segments, go through the
// kernel as one packet of at most 64 KiB; of 16 KiB only three would.
constexpr size_t kSentRecordBytes = 15 << 10;

// Answers nullptr for anything but what MakeTlsContext() made.
SSL_CTX* TlsContextOf(napi_env env, napi_value object);
// The oldest error of this thread, -1 with errno when there is none; clears all of them.
int TakeTlsError();

}  // namespace ztunnel
