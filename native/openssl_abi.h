// The OpenSSL inside the Node binary: types and functions that all of its 3.x versions keep.
//
// Nothing is linked. Each function is a weak symbol that the loader finds in the running process, so
// that the addon also loads where there is none, and createReactor can say what is missing. Only
// functions are used, no fields: the types are opaque and the ABI is stable within a major version.
#pragma once

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <string>

static_assert(OPENSSL_VERSION_MAJOR == 3, "headers of OpenSSL 3 are needed");

// What the addon calls, also through macros of the headers.
#define ZTUNNEL_OPENSSL_FUNCTIONS(X)                                                               \
  X(OpenSSL_version_num) X(OpenSSL_version)                                                        \
  X(BIO_meth_new) X(BIO_meth_free) X(BIO_meth_set_read) X(BIO_meth_set_write)                      \
  X(BIO_meth_set_ctrl) X(BIO_new) X(BIO_free) X(BIO_set_data) X(BIO_get_data) X(BIO_set_init)      \
  X(BIO_set_flags) X(BIO_clear_flags) X(BIO_new_mem_buf)                                           \
  X(ERR_clear_error) X(ERR_peek_error) X(ERR_peek_last_error) X(ERR_reason_error_string)           \
  X(PEM_read_bio_X509) X(PEM_read_bio_PrivateKey) X(EVP_PKEY_free) X(X509_free) X(i2d_X509)        \
  X(X509_STORE_add_cert) X(X509_STORE_set_flags) X(X509_verify_cert_error_string) X(CRYPTO_free)   \
  X(TLS_method) X(SSL_CTX_new) X(SSL_CTX_free) X(SSL_CTX_ctrl) X(SSL_CTX_set_options)              \
  X(SSL_CTX_set_ciphersuites) X(SSL_CTX_set_cipher_list) X(SSL_CTX_set_verify)                     \
  X(SSL_CTX_get_cert_store) X(SSL_CTX_add_client_CA) X(SSL_CTX_use_certificate)                    \
  X(SSL_CTX_use_PrivateKey) X(SSL_CTX_check_private_key) X(SSL_CTX_set_num_tickets)                \
  X(SSL_CTX_set_alpn_protos) X(SSL_CTX_set_alpn_select_cb) X(SSL_select_next_proto)                \
  X(SSL_new) X(SSL_free) X(SSL_set_bio) X(SSL_set_accept_state) X(SSL_set_connect_state)           \
  X(SSL_do_handshake) X(SSL_read_ex) X(SSL_write_ex) X(SSL_get_error) X(SSL_shutdown)              \
  X(SSL_key_update) X(SSL_version) X(SSL_get_verify_result) X(SSL_get0_peer_certificate)           \
  X(SSL_get0_verified_chain) X(OPENSSL_sk_num) X(OPENSSL_sk_value) X(SSL_alert_desc_string_long)

extern "C" {
#define ZTUNNEL_WEAK(name) extern decltype(name) name __attribute__((weak));
ZTUNNEL_OPENSSL_FUNCTIONS(ZTUNNEL_WEAK)
#undef ZTUNNEL_WEAK

// The public interface can send no alert but close_notify. This function is in every Node that
// carries its own OpenSSL 3, unchanged since 1.0; where OpenSSL is a shared library it is hidden.
int ssl3_send_alert(SSL* ssl, int level, int description) __attribute__((weak));
}

namespace ztunnel {

// One sentence for the operator; empty when this Node's OpenSSL can be used.
std::string OpenSslProblem();

// The oldest error of this thread in OpenSSL's words; clears all of them.
std::string TakeOpenSslError();

}  // namespace ztunnel
