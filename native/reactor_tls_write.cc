// Tunnels: from plaintext in the arena to ciphertext on its way.
#include <cstring>
#include <utility>

#include "reactor.h"

namespace ztunnel {

// Smaller writes of one batch share a record.
constexpr size_t kStagedMax = 4096;

// Returns false before OPEN and after the end.
bool Reactor::WriteTunnel(Connection* connection, const uint8_t* bytes, size_t count) {
  if (connection->Is(Connection::kHandshake | Connection::kEnding | Connection::kFailed)) {
    return false;
  }
  Add(kDirty, connection->Slot());
  while (count > 0) {
    Block<uint8_t>& stage = connection->stage;
    const bool is_long = count >= kStagedMax && stage == nullptr;
    if (!is_long && stage == nullptr) stage.reset(static_cast<uint8_t*>(malloc(kRecordBytes)));
    // Without memory it is a record of its own, too.
    if (stage == nullptr) {
      Encrypt(connection, bytes, count);
      break;
    }
    // Whole records, so that the header of a frame is no record of its own.
    const size_t taken = std::min(count, kRecordBytes - connection->staged_bytes);
    memcpy(stage.get() + connection->staged_bytes, bytes, taken);
    connection->staged_bytes += taken;
    bytes += taken;
    count -= taken;
    if (connection->staged_bytes == kRecordBytes) FlushStage(connection);
  }
  return true;
}

void Reactor::Encrypt(Connection* connection, const uint8_t* bytes, size_t count) {
  if (connection->Is(Connection::kFailed)) return;
  ERR_clear_error();
  connection->key_bytes += count;
  if (connection->key_bytes > sizes_.rekey_bytes &&
      SSL_version(connection->ssl.get()) >= TLS1_3_VERSION &&
      SSL_key_update(connection->ssl.get(), SSL_KEY_UPDATE_NOT_REQUESTED) == 1) {
    connection->key_bytes = count;
  }
  size_t written = 0;
  if (SSL_write_ex(connection->ssl.get(), bytes, count, &written) != 1) FailTls(connection);
}

void Reactor::EndTunnel(Connection* connection, int alert) {
  FlushStage(connection);
  ERR_clear_error();
  if (alert != SSL_AD_CLOSE_NOTIFY && &ssl3_send_alert != nullptr) {
    ssl3_send_alert(connection->ssl.get(), SSL3_AL_FATAL, alert);
  } else if (!connection->Is(Connection::kHandshake | Connection::kFailed)) {
    // An unfinished handshake has no close_notify to send.
    SSL_shutdown(connection->ssl.get());
  }
  FlushTunnel(connection);
}

void Reactor::FlushDirty() {
  while (first_[kDirty] != 0) {
    Connection* connection = slots_[TakeFrom(kDirty)].connection;
    if (connection == nullptr) continue;
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
  const Block<uint8_t> stage = std::move(connection->stage);
  Encrypt(connection, stage.get(), std::exchange(connection->staged_bytes, 0));
}

void Reactor::FlushCipher() {
  Connection* connection = std::exchange(sender_, nullptr);
  iovec piece = {encrypted_.get(), std::exchange(encrypted_bytes_, 0)};
  // An errno: the socket is broken.
  if (connection == nullptr || piece.iov_len == 0 || connection->failure > 0) return;
  Send(connection, &piece, 1);
}

// A record goes out whole; what a send takes stays in the cache of the processor. OpenSSL comes again
// with what is not taken.
int Reactor::WriteCipher(BIO* bio, const char* bytes, int count) {
  auto* connection = static_cast<Connection*>(BIO_get_data(bio));
  Reactor* reactor = connection->reactor;
  BIO_clear_retry_flags(bio);
  const size_t most = std::max(reactor->sizes_.cipher_send_bytes, kCipherRecordBytes);
  const size_t taken = std::min(static_cast<size_t>(std::max(count, 0)), most);
  if (reactor->sender_ != connection || reactor->encrypted_bytes_ + taken > most) {
    reactor->FlushCipher();
    reactor->sender_ = connection;
  }
  memcpy(reactor->encrypted_.get() + reactor->encrypted_bytes_, bytes, taken);
  reactor->encrypted_bytes_ += taken;
  return static_cast<int>(taken);
}

}  // namespace ztunnel
