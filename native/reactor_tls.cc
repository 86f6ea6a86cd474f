// Tunnels: OpenSSL between the socket and the arena.
//
// OpenSSL reads ciphertext from what was just received, in a buffer of the thread, and writes it to the
// queue of the connection; an idle tunnel has none. It never waits: what is not there
// yet is asked for again, and whatever it writes is taken.
#include <cstring>
#include <utility>

#include "reactor.h"

namespace ztunnel {

// Smaller writes of one batch share a record.
constexpr size_t kStagedMax = 4096;

int Reactor::ReadCipher(BIO* bio, char* into, int count) {
  Reactor* reactor = static_cast<Connection*>(BIO_get_data(bio))->reactor;
  BIO_clear_retry_flags(bio);
  const size_t left = reactor->received_end_ - reactor->received_start_;
  if (left == 0 || count <= 0) {
    BIO_set_retry_read(bio);
    return -1;
  }
  size_t taken = std::min(left, static_cast<size_t>(count));
  memcpy(into, reactor->received_.get() + reactor->received_start_, taken);
  reactor->received_start_ += taken;
  return static_cast<int>(taken);
}

long Reactor::ControlCipher(BIO*, int command, long, void*) {
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

bool Reactor::StartTls(Connection* connection, SSL_CTX* context, bool server) {
  ERR_clear_error();
  Owned<SSL, SSL_free> ssl(SSL_new(context));
  BIO* bio = ssl == nullptr ? nullptr : BIO_new(bio_method_.get());
  if (bio == nullptr) return false;
  BIO_set_data(bio, connection);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl.get(), bio, bio);
  server ? SSL_set_accept_state(ssl.get()) : SSL_set_connect_state(ssl.get());
  connection->ssl = std::move(ssl);
  connection->flags |= Connection::kHandshake;
  if (!server && !connection->Is(Connection::kConnecting)) Handshake(connection);
  ReadSoon(connection);
  return true;
}

// Goes on with the handshake; tells OPEN when it is done. The caller has reserved.
void Reactor::Handshake(Connection* connection) {
  ERR_clear_error();
  int result = SSL_do_handshake(connection->ssl.get());
  if (result == 1) {
    connection->Clear(Connection::kHandshake);
    Emit(kOpen, connection->id);
  } else if (SSL_get_error(connection->ssl.get(), result) != SSL_ERROR_WANT_READ) {
    FailTls(connection);
  }
  Flush(connection);
}

// Goes on with what was just received.
void Reactor::ReceiveCipher(Connection* connection, size_t count) {
  received_start_ = 0;
  received_end_ = count;
  if (connection->Is(Connection::kHandshake)) Handshake(connection);
  if (!connection->Is(Connection::kHandshake | Connection::kFailed)) Decrypt(connection);
  // Nothing is left for anybody else.
  received_start_ = received_end_;
  // Alerts, an answer to a key update.
  Flush(connection);
}

void Reactor::Decrypt(Connection* connection) {
  const size_t start = arena_used_;
  int result = 1;
  ERR_clear_error();
  // Ends for want of ciphertext, never of room: Read() has reserved enough. What OpenSSL has
  // taken is a part of a record at most, not worth asking for.
  while (result == 1 && received_start_ < received_end_) {
    size_t count = 0;
    result = SSL_read_ex(connection->ssl.get(), arena_ + arena_used_,
                         sizes_.arena_bytes - arena_used_, &count);
    arena_used_ += count;
  }
  if (arena_used_ > start) {
    Emit(kData, connection->id, static_cast<int64_t>(start),
         static_cast<int64_t>(arena_used_ - start));
    Occupy(arena_used_);
  }
  const int error = SSL_get_error(connection->ssl.get(), result);
  if (error == SSL_ERROR_NONE || error == SSL_ERROR_WANT_READ) return;
  if (error != SSL_ERROR_ZERO_RETURN) return FailTls(connection);
  connection->flags |= Connection::kAtEnd;
  Emit(kEof, connection->id);
}

// Says why OpenSSL gave up on the peer, after its last words to it are out.
void Reactor::FailTls(Connection* connection) {
  const int error = TakeTlsError();
  Flush(connection);
  Fail(connection, -1 - static_cast<int>(SSL_get_verify_result(connection->ssl.get())), error);
}

// Returns false before OPEN and after the end.
bool Reactor::WriteTunnel(Connection* connection, const uint8_t* bytes, size_t count) {
  if (connection->Is(Connection::kHandshake | Connection::kEnding | Connection::kFailed)) {
    return false;
  }
  Add(kStaged, connection->Slot());
  while (count > 0) {
    if (connection->stage == nullptr && count < kStagedMax) {
      connection->stage.reset(static_cast<uint8_t*>(malloc(kSentRecordBytes)));
    }
    // What is long, or finds no memory, is records of its own.
    if (connection->stage == nullptr) {
      Encrypt(connection, bytes, count);
      break;
    }
    // Whole records, so that the header of a frame is no record of its own.
    const size_t taken = std::min(count, kSentRecordBytes - connection->staged_bytes);
    memcpy(connection->stage.get() + connection->staged_bytes, bytes, taken);
    connection->staged_bytes += taken;
    bytes += taken;
    count -= taken;
    if (connection->staged_bytes == kSentRecordBytes) EncryptStage(connection);
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
