// Tunnels: OpenSSL between the socket and the arena.
//
// OpenSSL reads ciphertext from what was just received and writes it to what is about to be sent;
// both buffers belong to the thread, so an idle tunnel has none. It never waits: what is not there
// yet is asked for again, and whatever it writes is taken.
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "reactor.h"

namespace ztunnel {
namespace {

// Smaller writes of one batch share a record.
constexpr size_t kStagedMax = 4096;

// "no application protocol" and "unknown CA" as RFC 8446 spells them.
std::string AlertName(int alert) {
  // OpenSSL keeps the names of the alerts that came with TLS 1.3 to itself.
  if (alert == 109) return "missing_extension";
  if (alert == 116) return "certificate_required";
  std::string name = SSL_alert_desc_string_long(alert);
  for (char& letter : name) letter = letter == ' ' ? '_' : static_cast<char>(tolower(letter));
  return name == "unknown" ? std::to_string(alert) : name;
}

}  // namespace

int Reactor::ReadCipher(BIO* bio, char* into, int count) {
  auto* connection = static_cast<Connection*>(BIO_get_data(bio));
  Reactor* reactor = connection->reactor;
  BIO_clear_retry_flags(bio);
  size_t left = reactor->receiver_ == connection
                    ? reactor->received_end_ - reactor->received_start_
                    : 0;
  if (left == 0 || count <= 0) {
    BIO_set_retry_read(bio);
    return -1;
  }
  size_t taken = std::min(left, static_cast<size_t>(count));
  memcpy(into, reactor->received_ + reactor->received_start_, taken);
  reactor->received_start_ += taken;
  return static_cast<int>(taken);
}

int Reactor::WriteCipher(BIO* bio, const char* bytes, int count) {
  auto* connection = static_cast<Connection*>(BIO_get_data(bio));
  Reactor* reactor = connection->reactor;
  BIO_clear_retry_flags(bio);
  if (reactor->sender_ != connection) {
    reactor->FlushCipher();
    reactor->sender_ = connection;
  }
  // A record goes out whole; what a send takes stays in the cache of the processor.
  const size_t most = std::max(reactor->options_.cipher_send_bytes, kCipherRecordBytes);
  for (size_t done = 0, all = static_cast<size_t>(std::max(count, 0)); done < all;) {
    size_t taken = std::min(all - done, most);
    if (reactor->encrypted_bytes_ + taken > most) {
      reactor->FlushCipher();
      reactor->sender_ = connection;
    }
    memcpy(reactor->encrypted_ + reactor->encrypted_bytes_, bytes + done, taken);
    reactor->encrypted_bytes_ += taken;
    done += taken;
  }
  return count;
}

long Reactor::ControlCipher(BIO*, int command, long, void*) {
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

bool Reactor::StartTls(Connection* connection, SSL_CTX* context, bool server) {
  ERR_clear_error();
  SSL* ssl = SSL_new(context);
  BIO* bio = ssl == nullptr ? nullptr : BIO_new(bio_method_);
  if (bio == nullptr) {
    if (ssl != nullptr) SSL_free(ssl);
    return false;
  }
  BIO_set_data(bio, connection);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl, bio, bio);
  server ? SSL_set_accept_state(ssl) : SSL_set_connect_state(ssl);
  connection->ssl = ssl;
  connection->flags |= static_cast<uint16_t>(Connection::kHandshake | (server ? Connection::kServer : 0));
  connection->flags &= static_cast<uint16_t>(~Connection::kPaused);
  if (!server && !connection->Is(Connection::kConnecting)) {
    Handshake(connection);
    FlushTunnel(connection);
  }
  UpdateInterest(connection);
  return true;
}

// Goes on with the handshake; tells OPEN when it is done. The caller has reserved and sends.
void Reactor::Handshake(Connection* connection) {
  ERR_clear_error();
  int result = SSL_do_handshake(connection->ssl);
  if (result == 1) {
    connection->flags &= static_cast<uint16_t>(~Connection::kHandshake);
    Emit(kOpen, connection->id);
  } else if (SSL_get_error(connection->ssl, result) != SSL_ERROR_WANT_READ) {
    FailTls(connection);
  }
}

void Reactor::ReadTunnel(Connection* connection) {
  const int32_t id = connection->id;
  // All that can come out: this read, and a record of which all but the end came earlier.
  Reserve(options_.cipher_read_bytes + kRecordBytes);
  connection = Find(id);
  if (connection == nullptr || !WantsRead(*connection)) return;
  ssize_t count = recv(connection->fd, received_, options_.cipher_read_bytes, MSG_DONTWAIT);
  if (count < 0) {
    if (errno != EAGAIN && errno != EINTR) Fail(connection, errno);
    return;
  }
  if (count == 0) {
    connection->flags |= Connection::kAtEnd;
    Emit(kEof, id);
    return;
  }
  receiver_ = connection;
  received_start_ = 0;
  received_end_ = static_cast<size_t>(count);
  if (connection->Is(Connection::kHandshake)) Handshake(connection);
  if (!connection->Is(Connection::kHandshake | Connection::kFailed)) Decrypt(connection);
  receiver_ = nullptr;
  // Handshake messages, alerts, an answer to a key update.
  FlushTunnel(connection);
}

void Reactor::Decrypt(Connection* connection) {
  const size_t start = arena_used_;
  int result = 1;
  ERR_clear_error();
  while (result == 1) {
    size_t count = 0;
    result = SSL_read_ex(connection->ssl, memory_->Bytes(kArena) + arena_used_,
                         options_.arena_bytes - arena_used_, &count);
    arena_used_ += count;
  }
  if (arena_used_ > start) {
    Emit(kData, connection->id, static_cast<int64_t>(start),
         static_cast<int64_t>(arena_used_ - start));
    arena_used_ = std::min((arena_used_ + 15) & ~size_t{15}, options_.arena_bytes);
  }
  switch (SSL_get_error(connection->ssl, result)) {
    case SSL_ERROR_WANT_READ:
      return;
    case SSL_ERROR_ZERO_RETURN:
      connection->flags |= Connection::kAtEnd;
      Emit(kEof, connection->id);
      return;
    default:
      FailTls(connection);
  }
}

// Returns false before OPEN and after the end.
bool Reactor::WriteTunnel(Connection* connection, const uint8_t* bytes, size_t count) {
  if (connection->Is(Connection::kHandshake | Connection::kEnding | Connection::kFailed)) {
    return false;
  }
  if (count == 0) return true;
  MarkDirty(connection);
  if (connection->staged_bytes + count > kRecordBytes || count >= kStagedMax) {
    FlushStage(connection);
  }
  if (count < kStagedMax && connection->stage == nullptr) {
    connection->stage = spare_stage_count_ > 0 ? spare_stages_[--spare_stage_count_]
                                               : static_cast<uint8_t*>(malloc(kRecordBytes));
  }
  if (count >= kStagedMax || connection->stage == nullptr) {
    Encrypt(connection, bytes, count);
    return true;
  }
  memcpy(connection->stage + connection->staged_bytes, bytes, count);
  connection->staged_bytes += count;
  return true;
}

void Reactor::Encrypt(Connection* connection, const uint8_t* bytes, size_t count) {
  if (connection->Is(Connection::kFailed)) return;
  ERR_clear_error();
  connection->key_bytes += count;
  if (connection->key_bytes > options_.rekey_bytes &&
      SSL_version(connection->ssl) >= TLS1_3_VERSION &&
      SSL_key_update(connection->ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1) {
    connection->key_bytes = count;
  }
  size_t written = 0;
  if (SSL_write_ex(connection->ssl, bytes, count, &written) != 1) FailTls(connection);
}

void Reactor::EndTunnel(Connection* connection) {
  FlushStage(connection);
  ERR_clear_error();
  // An unfinished handshake has no close_notify to send.
  if (!connection->Is(Connection::kHandshake | Connection::kFailed)) SSL_shutdown(connection->ssl);
  FlushTunnel(connection);
}

void Reactor::AlertTunnel(Connection* connection, int alert) {
  FlushStage(connection);
  ERR_clear_error();
  if (&ssl3_send_alert != nullptr) {
    ssl3_send_alert(connection->ssl, SSL3_AL_FATAL, alert);
  } else {
    SSL_shutdown(connection->ssl);
  }
}

void Reactor::MarkDirty(Connection* connection) {
  if (connection->Is(Connection::kDirty)) return;
  connection->flags |= Connection::kDirty;
  connection->next_dirty = dirty_;
  dirty_ = connection;
}

void Reactor::FlushDirty() {
  while (dirty_ != nullptr) {
    Connection* connection = dirty_;
    dirty_ = connection->next_dirty;
    connection->flags &= static_cast<uint16_t>(~Connection::kDirty);
    FlushTunnel(connection);
    UpdateInterest(connection);
  }
}

void Reactor::FlushTunnel(Connection* connection) {
  FlushStage(connection);
  if (sender_ == connection) FlushCipher();
}

void Reactor::FlushStage(Connection* connection) {
  if (connection->stage == nullptr) return;
  uint8_t* stage = connection->stage;
  Encrypt(connection, stage, connection->staged_bytes);
  connection->stage = nullptr;
  connection->staged_bytes = 0;
  if (spare_stage_count_ < kSpareStagesMax) {
    spare_stages_[spare_stage_count_++] = stage;
  } else {
    free(stage);
  }
}

void Reactor::FlushCipher() {
  Connection* connection = sender_;
  const size_t count = encrypted_bytes_;
  sender_ = nullptr;
  encrypted_bytes_ = 0;
  if (connection == nullptr || count == 0 || connection->failure > 0) return;
  size_t sent = 0;
  if (connection->queue.Size() == 0 && !connection->Is(Connection::kConnecting)) {
    ssize_t taken = send(connection->fd, encrypted_, count, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (taken < 0 && errno != EAGAIN && errno != EINTR) return Fail(connection, errno);
    if (taken > 0) sent = static_cast<size_t>(taken);
  }
  if (sent < count) Enqueue(connection, encrypted_ + sent, count - sent);
}

// Says why OpenSSL gave up on the peer, after its last words to it are out.
void Reactor::FailTls(Connection* connection) {
  const unsigned long error = ERR_peek_error();
  const int reason = ERR_GET_REASON(error);
  const std::string words = TakeOpenSslError();
  if (sender_ == connection) FlushCipher();
  if (ERR_GET_LIB(error) != ERR_LIB_SSL) {
    Fail(connection, kProtocol, reason, words);
  } else if (reason > SSL_AD_REASON_OFFSET && reason <= SSL_AD_REASON_OFFSET + UINT8_MAX) {
    const int alert = reason - SSL_AD_REASON_OFFSET;
    Fail(connection, kAlertReceived, alert, "alert " + AlertName(alert));
  } else if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED) {
    const long verdict = SSL_get_verify_result(connection->ssl);
    Fail(connection, kUntrusted, static_cast<int>(verdict),
         words + ": " + X509_verify_cert_error_string(verdict));
  } else {
    Fail(connection, kProtocol, reason, words);
  }
}

}  // namespace ztunnel
