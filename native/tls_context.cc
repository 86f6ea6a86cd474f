#include "tls_context.h"

#include "functions.h"

namespace ztunnel {
namespace {

// Tells our objects from those of others.
constexpr napi_type_tag kTag = {0x7a74756e6e656c54, 0x6c73436f6e746578};
// The only protocol, in the form of RFC 7301.
constexpr unsigned char kAlpn[] = {2, 'h', '2'};

int ChooseAlpn(SSL*, const unsigned char** chosen, unsigned char* chosen_bytes,
               const unsigned char* offered, unsigned offered_bytes, void*) {
  int found = SSL_select_next_proto(const_cast<unsigned char**>(chosen), chosen_bytes, kAlpn,
                                    sizeof(kAlpn), offered, offered_bytes);
  return found == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

// Each of these returns false, mostly with OpenSSL's errors, for what is broken or does not fit.

bool UseKey(SSL_CTX* context, const Bytes& der) {
  const uint8_t* at = der.data;
  const Owned<EVP_PKEY, EVP_PKEY_free> key(
      d2i_AutoPrivateKey(nullptr, &at, static_cast<long>(der.length)));
  return key != nullptr && SSL_CTX_use_PrivateKey(context, key.get()) == 1 &&
         SSL_CTX_check_private_key(context) == 1;
}

// Of our chain, leaf first, or whom to trust; those are also named to clients, as a hint which
// certificate to show.
bool UseCertificate(SSL_CTX* context, const Bytes& der, bool is_root) {
  const uint8_t* at = der.data;
  const Owned<X509, X509_free> owned(d2i_X509(nullptr, &at, static_cast<long>(der.length)));
  X509* certificate = owned.get();
  if (certificate == nullptr) return false;
  if (is_root) {
    return X509_STORE_add_cert(SSL_CTX_get_cert_store(context), certificate) == 1 &&
           SSL_CTX_add_client_CA(context, certificate) == 1;
  }
  return SSL_CTX_get0_certificate(context) == nullptr
             ? SSL_CTX_use_certificate(context, certificate) == 1
             : SSL_CTX_add1_chain_cert(context, certificate) == 1;
}

bool UseSetting(SSL_CTX* context, const std::string& command, const Bytes& value) {
  const Owned<SSL_CONF_CTX, SSL_CONF_CTX_free> configuration(SSL_CONF_CTX_new());
  if (configuration == nullptr) return false;
  SSL_CONF_CTX_set_flags(configuration.get(),
                         SSL_CONF_FLAG_FILE | SSL_CONF_FLAG_CLIENT | SSL_CONF_FLAG_SERVER);
  SSL_CONF_CTX_set_ssl_ctx(configuration.get(), context);
  const std::string text(value.data, value.data + value.length);
  return SSL_CONF_cmd(configuration.get(), command.c_str(), text.c_str()) > 0;
}

}  // namespace

int TakeTlsError() {
  const auto error = static_cast<int>(ERR_peek_error());
  ERR_clear_error();
  return error > 0 ? error : FailWith(EPROTO);
}

// What does not depend on anybody; the rest is configured.
napi_value MakeTlsContext(napi_env env, napi_callback_info) {
  ERR_clear_error();
  Owned<SSL_CTX, SSL_CTX_free> context(SSL_CTX_new(TLS_method()));
  if (context == nullptr || SSL_CTX_set_num_tickets(context.get(), 0) != 1 ||
      SSL_CTX_set_max_send_fragment(context.get(), kSentRecordBytes) != 1 ||
      SSL_CTX_set_alpn_protos(context.get(), kAlpn, sizeof(kAlpn)) != 0) {
    return ThrowText(env, "no memory for a TLS context");
  }
  SSL_CTX_set_alpn_select_cb(context.get(), ChooseAlpn, nullptr);
  SSL_CTX_set_mode(context.get(), SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  // What we are given as a root is one, also when somebody else signed it.
  X509_STORE_set_flags(SSL_CTX_get_cert_store(context.get()), X509_V_FLAG_PARTIAL_CHAIN);
  napi_value result = nullptr;
  napi_create_object(env, &result);
  napi_type_tag_object(env, result, &kTag);
  auto is_gone = [](napi_env, void* data, void*) { SSL_CTX_free(static_cast<SSL_CTX*>(data)); };
  napi_wrap(env, result, context.release(), is_gone, nullptr, nullptr);
  return result;
}

SSL_CTX* TlsContextOf(napi_env env, napi_value object) {
  bool is_ours = false;
  void* context = nullptr;
  if (TypeOf(env, object) == napi_object) napi_check_object_type_tag(env, object, &kTag, &is_ours);
  if (is_ours) napi_unwrap(env, object, &context);
  return static_cast<SSL_CTX*>(context);
}

int ConfigureTls(napi_env env, napi_value object, Bytes name, Bytes value) {
  SSL_CTX* context = TlsContextOf(env, object);
  if (context == nullptr) return FailWith(EINVAL);
  ERR_clear_error();
  const std::string what(name.data, name.data + name.length);
  const bool is_used = what == "key"     ? UseKey(context, value)
                       : what == "chain" ? UseCertificate(context, value, false)
                       : what == "root"  ? UseCertificate(context, value, true)
                                         : UseSetting(context, what, value);
  return is_used ? 0 : TakeTlsError();
}

// A positive number is one of OpenSSL's errors; -1 and below stand for its X509_V numbers from 0 on.
napi_value TlsText(napi_env env, napi_callback_info info) {
  int number = 0;
  size_t next = 0;
  Take(env, Arguments(env, info), &next, &number);
  if (Pending(env)) return nullptr;
  const char* text = number < 0 ? X509_verify_cert_error_string(-1 - number)
                                : ERR_reason_error_string(static_cast<unsigned long>(number));
  return FromText(env, text == nullptr ? "unknown TLS failure" : text);
}

}  // namespace ztunnel
