// Tunnels: OpenSSL between the socket and the arena; here from handshake to plaintext.
//
// OpenSSL reads ciphertext from what was just received, in a buffer of the thread, and writes it to the
// queue of the connection; an idle tunnel has none. It never waits: what is not there
// yet is asked for again, and whatever it writes is taken.
#include <cstring>
#include <utility>

#include "reactor.h"

namespace ztunnel {

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
  switch (SSL_get_error(connection->ssl.get(), result)) {
    case SSL_ERROR_NONE:
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

// Says why OpenSSL gave up on the peer, after its last words to it are out.
void Reactor::FailTls(Connection* connection) {
  const auto error = static_cast<int>(ERR_peek_error());
  ERR_clear_error();
  Flush(connection);
  Fail(connection, -1 - static_cast<int>(SSL_get_verify_result(connection->ssl.get())), error);
}

}  // namespace ztunnel
