#include "tls_contexts.h"

#include <cstdlib>

namespace ztunnel {
namespace {

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

class PemReader {
 public:
  explicit PemReader(const std::string& pem)
      : bio_(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()))) {}
  ~PemReader() { BIO_free(bio_); }

  X509* Certificate() {
    return bio_ == nullptr ? nullptr : PEM_read_bio_X509(bio_, nullptr, NoPassword, nullptr);
  }
  EVP_PKEY* Key() {
    return bio_ == nullptr ? nullptr : PEM_read_bio_PrivateKey(bio_, nullptr, NoPassword, nullptr);
  }
  // Tells that Certificate() found no further block, as opposed to a broken one; clears the errors.
  static bool AtEnd() {
    bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    if (at_end) ERR_clear_error();
    return at_end;
  }

 private:
  BIO* bio_;
};

// Leaf first. Returns false with OpenSSL's errors.
bool UseChain(SSL_CTX* context, const std::string& pem) {
  PemReader reader(pem);
  X509* leaf = reader.Certificate();
  if (leaf == nullptr) return false;
  bool good = SSL_CTX_use_certificate(context, leaf) == 1;
  X509_free(leaf);
  while (good) {
    X509* issuer = reader.Certificate();
    if (issuer == nullptr) return PemReader::AtEnd();
    good = SSL_CTX_add1_chain_cert(context, issuer) == 1;
    X509_free(issuer);
  }
  return false;
}

bool UseKey(SSL_CTX* context, const std::string& pem) {
  EVP_PKEY* key = PemReader(pem).Key();
  if (key == nullptr) return false;
  bool good = SSL_CTX_use_PrivateKey(context, key) == 1;
  EVP_PKEY_free(key);
  return good && SSL_CTX_check_private_key(context) == 1;
}

// Also names them to clients, as a hint which certificate to show.
bool TrustRoots(SSL_CTX* context, const std::string& pem) {
  X509_STORE* store = SSL_CTX_get_cert_store(context);
  // What we are given as a root is one, also when somebody else signed it.
  X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
  // Without roots nobody is trusted, which a handshake tells better than its preparation.
  if (pem.empty()) return true;
  PemReader reader(pem);
  for (bool any = false;; any = true) {
    X509* root = reader.Certificate();
    if (root == nullptr) return any && PemReader::AtEnd();
    bool good = X509_STORE_add_cert(store, root) == 1 && SSL_CTX_add_client_CA(context, root) == 1;
    X509_free(root);
    if (!good) return false;
  }
}

// Before OpenSSL 3.3 there are no optional groups, and none of those that came later.
bool OfferGroups(SSL_CTX* context, const std::string& groups) {
  if (SSL_CTX_set1_groups_list(context, groups.c_str()) == 1) return true;
  size_t optional = groups.find(":?");
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

TlsContexts::~TlsContexts() {
  for (size_t i = 0; i < count_; ++i) SSL_CTX_free(entries_[i].context);
  free(entries_);
}

uint32_t TlsContexts::Make(const TlsContextOptions& options, std::string* problem) {
  if (count_ == capacity_) {
    size_t capacity = capacity_ * 2 + 16;
    void* grown = realloc(entries_, capacity * sizeof(Entry));
    if (grown == nullptr) {
      *problem = "out of memory";
      return 0;
    }
    entries_ = static_cast<Entry*>(grown);
    capacity_ = capacity;
  }
  ERR_clear_error();
  SSL_CTX* context = SSL_CTX_new(TLS_method());
  const char* option = context == nullptr ? "TLS" : Configure(context, options);
  if (option != nullptr) {
    *problem = std::string(option) + ": " + TakeOpenSslError();
    if (context != nullptr) SSL_CTX_free(context);
    return 0;
  }
  entries_[count_++] = {++last_number_, context};
  return last_number_;
}

SSL_CTX* TlsContexts::Find(uint32_t number) const {
  for (size_t i = 0; i < count_; ++i) {
    if (entries_[i].number == number) return entries_[i].context;
  }
  return nullptr;
}

bool TlsContexts::Free(uint32_t number) {
  for (size_t i = 0; i < count_; ++i) {
    if (entries_[i].number != number) continue;
    SSL_CTX_free(entries_[i].context);
    entries_[i] = entries_[--count_];
    return true;
  }
  return false;
}

}  // namespace ztunnel
