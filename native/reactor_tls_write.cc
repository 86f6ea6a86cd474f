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
  Add(kStaged, connection->Slot());
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
    if (connection->staged_bytes == kRecordBytes) EncryptStage(connection);
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
  EncryptStage(connection);
  ERR_clear_error();
  if (alert != SSL_AD_CLOSE_NOTIFY && &ssl3_send_alert != nullptr) {
    ssl3_send_alert(connection->ssl.get(), SSL3_AL_FATAL, alert);
  } else if (!connection->Is(Connection::kHandshake | Connection::kFailed)) {
    // An unfinished handshake has no close_notify to send.
    SSL_shutdown(connection->ssl.get());
  }
  Flush(connection);
}

void Reactor::EncryptStage(Connection* connection) {
  if (connection->stage == nullptr) return;
  const Block<uint8_t> stage = std::move(connection->stage);
  Encrypt(connection, stage.get(), std::exchange(connection->staged_bytes, 0));
}

// A record goes into the queue whole; what a send takes stays in the cache of the processor.
int Reactor::WriteCipher(BIO* bio, const char* bytes, int count) {
  auto* connection = static_cast<Connection*>(BIO_get_data(bio));
  Reactor* reactor = connection->reactor;
  const auto length = static_cast<size_t>(std::max(count, 0));
  BIO_clear_retry_flags(bio);
  if (connection->queue.Size() + length > reactor->sizes_.cipher_send_bytes) {
    reactor->Flush(connection);
  }
  reactor->Enqueue(connection, bytes, length);
  return count;
}

}  // namespace ztunnel
