#include "tls_context.h"

#include "functions.h"

namespace ztunnel {
namespace {

using Configuration = Owned<SSL_CONF_CTX, SSL_CONF_CTX_free>;
using Context = Owned<SSL_CTX, SSL_CTX_free>;

// Commands of SSL_CONF_cmd() that JavaScript gives the values of.
constexpr const char* kSettings[] = {"MinProtocol", "Ciphersuites", "CipherString", "Groups"};
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

// Of DER texts one after the other. Returns false, mostly with OpenSSL's errors, at the first that is
// broken or that `use` refuses.
template <typename Use>
bool UseEach(const Bytes& ders, Use use) {
  const uint8_t* at = ders.data;
  const uint8_t* const end = at + ders.length;
  while (at < end) {
    const Owned<X509, X509_free> certificate(d2i_X509(nullptr, &at, end - at));
    if (certificate == nullptr || !use(certificate.get())) return false;
  }
  return true;
}

// Leaf first.
bool UseChain(SSL_CTX* context, const Bytes& chain) {
  return UseEach(chain, [context](X509* certificate) {
    return SSL_CTX_get0_certificate(context) == nullptr
               ? SSL_CTX_use_certificate(context, certificate) == 1
               : SSL_CTX_add1_chain_cert(context, certificate) == 1;
  });
}

bool UseKey(SSL_CTX* context, const Bytes& der) {
  const uint8_t* at = der.data;
  const Owned<EVP_PKEY, EVP_PKEY_free> key(
      d2i_AutoPrivateKey(nullptr, &at, static_cast<long>(der.length)));
  return key != nullptr && SSL_CTX_use_PrivateKey(context, key.get()) == 1 &&
         SSL_CTX_check_private_key(context) == 1;
}

// Also names them to clients, as a hint which certificate to show.
bool TrustRoots(SSL_CTX* context, const Bytes& roots) {
  X509_STORE* store = SSL_CTX_get_cert_store(context);
  // What we are given as a root is one, also when somebody else signed it.
  X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
  return UseEach(roots, [context, store](X509* root) {
    return X509_STORE_add_cert(store, root) == 1 && SSL_CTX_add_client_CA(context, root) == 1;
  });
}

// What does not depend on anybody. Returns false with OpenSSL's errors.
bool Prepare(SSL_CTX* context, SSL_CONF_CTX* configuration) {
  if (context == nullptr || configuration == nullptr) return false;
  SSL_CONF_CTX_set_flags(configuration,
                         SSL_CONF_FLAG_FILE | SSL_CONF_FLAG_CLIENT | SSL_CONF_FLAG_SERVER);
  SSL_CONF_CTX_set_ssl_ctx(configuration, context);
  SSL_CTX_set_options(context,
                      SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | kNoCertificateCompression);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  SSL_CTX_set_alpn_select_cb(context, ChooseAlpn, nullptr);
  return SSL_CTX_set_num_tickets(context, 0) == 1 &&
         SSL_CTX_set_alpn_protos(context, kAlpn, sizeof(kAlpn)) == 0;
}

}  // namespace

std::string TakeOpenSslError() {
  const char* reason = ERR_reason_error_string(ERR_peek_error());
  ERR_clear_error();
  return reason == nullptr ? "unknown TLS failure" : reason;
}

napi_value MakeTlsContext(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  napi_value settings = arguments.values[0];
  std::optional<Bytes> chain = RequireBytes(env, arguments.values[1], "chain");
  std::optional<Bytes> key = RequireBytes(env, arguments.values[2], "key");
  std::optional<Bytes> roots = RequireBytes(env, arguments.values[3], "roots");
  if (!chain || !key || !roots || !RequireObject(env, settings, "settings")) return nullptr;
  const auto refuse = [env](const std::string& what) {
    return ThrowText(env, what + ": " + TakeOpenSslError());
  };
  ERR_clear_error();
  Context context(SSL_CTX_new(TLS_method()));
  const Configuration configuration(SSL_CONF_CTX_new());
  if (!Prepare(context.get(), configuration.get())) return refuse("TLS");
  for (const char* name : kSettings) {
    std::optional<std::string> value = RequireText(env, Property(env, settings, name), name);
    if (!value) return nullptr;
    if (SSL_CONF_cmd(configuration.get(), name, value->c_str()) <= 0) return refuse(name);
  }
  if (!UseChain(context.get(), *chain)) return refuse("chain");
  if (!UseKey(context.get(), *key)) return refuse("key");
  if (!TrustRoots(context.get(), *roots)) return refuse("roots");
  napi_value result = NewObject(env);
  auto is_gone = [](napi_env, void* data, void*) { SSL_CTX_free(static_cast<SSL_CTX*>(data)); };
  Wrap(env, result, kTlsContextTag, context.release(), is_gone);
  return result;
}

// A positive number is one of OpenSSL's errors; -1 and below stand for its X509_V numbers from 0 on.
napi_value TlsText(napi_env env, napi_callback_info info) {
  auto number = RequireInteger(env, Arguments(env, info).values[0], "number", UINT32_MAX, INT32_MIN);
  if (!number) return nullptr;
  const char* text = *number < 0 ? X509_verify_cert_error_string(-1 - *number)
                                 : ERR_reason_error_string(static_cast<unsigned long>(*number));
  return FromText(env, text == nullptr ? "unknown TLS failure" : text);
}

}  // namespace ztunnel
