// Tunnels: from plaintext in the arena to ciphertext on its way.
#include <cerrno>
#include <cstring>
#include <utility>

#include "reactor.h"

namespace ztunnel {
namespace {

// Smaller writes of one batch share a record.
constexpr size_t kStagedMax = 4096;

}  // namespace

// Returns false before OPEN and after the end.
bool Reactor::WriteTunnel(Connection* connection, const uint8_t* bytes, size_t count) {
  if (connection->Is(Connection::kHandshake | Connection::kEnding | Connection::kFailed)) {
    return false;
  }
  if (count > 0) dirty_.Add(connection->Slot());
  // Whole records, so that the header of a frame is no record of its own.
  if (connection->staged_bytes > 0 && connection->staged_bytes + count > kRecordBytes) {
    const size_t head = kRecordBytes - connection->staged_bytes;
    Stage(connection, bytes, head);
    FlushStage(connection);
    bytes += head;
    count -= head;
  }
  const bool shares = count < kStagedMax || connection->staged_bytes > 0;
  if (count > 0 && !(shares && Stage(connection, bytes, count))) Encrypt(connection, bytes, count);
  return true;
}

// Returns false when there is no memory.
bool Reactor::Stage(Connection* connection, const uint8_t* bytes, size_t count) {
  if (connection->stage == nullptr) {
    connection->stage = spare_stage_count_ > 0 ? std::move(spare_stages_[--spare_stage_count_])
                                               : Allocate<uint8_t>(kRecordBytes);
    if (connection->stage == nullptr) return false;
  }
  memcpy(connection->stage.get() + connection->staged_bytes, bytes, count);
  connection->staged_bytes += count;
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

void Reactor::EndTunnel(Connection* connection) {
  FlushStage(connection);
  ERR_clear_error();
  // An unfinished handshake has no close_notify to send.
  if (!connection->Is(Connection::kHandshake | Connection::kFailed)) SSL_shutdown(connection->ssl.get());
  FlushTunnel(connection);
}

void Reactor::AlertTunnel(Connection* connection, int alert) {
  FlushStage(connection);
  ERR_clear_error();
  if (&ssl3_send_alert != nullptr) {
    ssl3_send_alert(connection->ssl.get(), SSL3_AL_FATAL, alert);
  } else {
    SSL_shutdown(connection->ssl.get());
  }
}

void Reactor::FlushDirty() {
  while (!dirty_.IsEmpty()) {
    Connection* connection = slots_[dirty_.Take()].connection;
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
  Block<uint8_t> stage = std::move(connection->stage);
  Encrypt(connection, stage.get(), std::exchange(connection->staged_bytes, 0));
  if (spare_stage_count_ < kSpareStagesMax) spare_stages_[spare_stage_count_++] = std::move(stage);
}

void Reactor::FlushCipher() {
  Connection* connection = std::exchange(sender_, nullptr);
  iovec piece = {encrypted_.get(), std::exchange(encrypted_bytes_, 0)};
  // An errno: the socket is broken.
  if (connection == nullptr || piece.iov_len == 0 || connection->failure > 0) return;
  Send(connection, &piece, 1);
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
  const size_t most = std::max(reactor->sizes_.cipher_send_bytes, kCipherRecordBytes);
  for (size_t done = 0, all = static_cast<size_t>(std::max(count, 0)); done < all;) {
    size_t taken = std::min(all - done, most);
    if (reactor->encrypted_bytes_ + taken > most) {
      reactor->FlushCipher();
      reactor->sender_ = connection;
    }
    memcpy(reactor->encrypted_.get() + reactor->encrypted_bytes_, bytes + done, taken);
    reactor->encrypted_bytes_ += taken;
    done += taken;
  }
  return count;
}

}  // namespace ztunnel
