#include "tls_context.h"

namespace ztunnel {
namespace {

using Bio = Owned<BIO, BIO_free>;
using Certificate = Owned<X509, X509_free>;
using Key = Owned<EVP_PKEY, EVP_PKEY_free>;

constexpr char kSuites13[] = "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256";
constexpr char kSuites12[] =
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256";
// No compressed certificates (RFC 8879), in either direction: Brotli takes twice the time of all the
// rest of a handshake to save a hundred bytes. Bits of OpenSSL 3.2, without a meaning before.
constexpr uint64_t kNoCertificateCompression = uint64_t{1} << 32 | uint64_t{1} << 33;
// The only protocol, in the form of RFC 7301.
constexpr unsigned char kAlpn[] = {2, 'h', '2'};

int ChooseAlpn(SSL*, const unsigned char** chosen, unsigned char* chosen_bytes,
               const unsigned char* offered, unsigned offered_bytes, void*) {
  int found = SSL_select_next_proto(const_cast<unsigned char**>(chosen), chosen_bytes, kAlpn,
                                    sizeof(kAlpn), offered, offered_bytes);
  return found == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

// An encrypted key is refused; OpenSSL would ask on the terminal.
int NoPassword(char*, int, int, void*) { return -1; }

Bio ReadFrom(const std::string& pem) {
  return Bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}

// One after the other; none at the end, and where the text is broken.
Certificate NextCertificate(const Bio& bio) {
  return Certificate(bio == nullptr ? nullptr
                                    : PEM_read_bio_X509(bio.get(), nullptr, NoPassword, nullptr));
}

// Tells that NextCertificate() found no further block, as opposed to a broken one; clears the errors.
bool IsAtEnd() {
  const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  if (at_end) ERR_clear_error();
  return at_end;
}

// Leaf first. Returns false with OpenSSL's errors.
bool UseChain(SSL_CTX* context, const std::string& pem) {
  const Bio bio = ReadFrom(pem);
  const Certificate leaf = NextCertificate(bio);
  if (leaf == nullptr || SSL_CTX_use_certificate(context, leaf.get()) != 1) return false;
  while (const Certificate issuer = NextCertificate(bio)) {
    if (SSL_CTX_add1_chain_cert(context, issuer.get()) != 1) return false;
  }
  return IsAtEnd();
}

bool UseKey(SSL_CTX* context, const std::string& pem) {
  const Bio bio = ReadFrom(pem);
  if (bio == nullptr) return false;
  const Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassword, nullptr));
  return key != nullptr && SSL_CTX_use_PrivateKey(context, key.get()) == 1 &&
         SSL_CTX_check_private_key(context) == 1;
}

// Also names them to clients, as a hint which certificate to show.
bool TrustRoots(SSL_CTX* context, const std::string& pem) {
  X509_STORE* store = SSL_CTX_get_cert_store(context);
  // What we are given as a root is one, also when somebody else signed it.
  X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
  // Without roots nobody is trusted, which a handshake tells better than its preparation.
  if (pem.empty()) return true;
  const Bio bio = ReadFrom(pem);
  bool any = false;
  for (; const Certificate root = NextCertificate(bio); any = true) {
    if (X509_STORE_add_cert(store, root.get()) != 1) return false;
    if (SSL_CTX_add_client_CA(context, root.get()) != 1) return false;
  }
  return any && IsAtEnd();
}

// Before OpenSSL 3.3 there are no optional groups, and none of those that came later.
bool OfferGroups(SSL_CTX* context, const std::string& groups) {
  if (SSL_CTX_set1_groups_list(context, groups.c_str()) == 1) return true;
  const size_t optional = groups.find(":?");
  if (optional == std::string::npos) return false;
  ERR_clear_error();
  return SSL_CTX_set1_groups_list(context, groups.substr(0, optional).c_str()) == 1;
}

// Returns nullptr, or the option that OpenSSL's errors are about.
const char* Configure(SSL_CTX* context, const TlsContextOptions& options) {
  SSL_CTX_set_options(context,
                      SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | kNoCertificateCompression);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  SSL_CTX_set_alpn_select_cb(context, ChooseAlpn, nullptr);
  if (SSL_CTX_set_num_tickets(context, 0) != 1 ||
      SSL_CTX_set_alpn_protos(context, kAlpn, sizeof(kAlpn)) != 0 ||
      SSL_CTX_set_min_proto_version(context, options.tls12 ? TLS1_2_VERSION : TLS1_3_VERSION) != 1 ||
      SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) != 1 ||
      SSL_CTX_set_ciphersuites(context, kSuites13) != 1 ||
      SSL_CTX_set_cipher_list(context, kSuites12) != 1) {
    return "tls12";
  }
  if (!OfferGroups(context, options.groups)) return "groups";
  if (!UseChain(context, options.chain_pem)) return "chainPem";
  if (!UseKey(context, options.key_pem)) return "keyPem";
  if (!TrustRoots(context, options.roots_pem)) return "rootsPem";
  return nullptr;
}

}  // namespace

TlsContext MakeTlsContext(const TlsContextOptions& options, std::string* problem) {
  ERR_clear_error();
  TlsContext context(SSL_CTX_new(TLS_method()));
  const char* option = context == nullptr ? "TLS" : Configure(context.get(), options);
  if (option == nullptr) return context;
  *problem = std::string(option) + ": " + TakeOpenSslError();
  return nullptr;
}

}  // namespace ztunnel
