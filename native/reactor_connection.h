// One socket of a reactor: a listener, a plain connection or a tunnel.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "byte_queue.h"
#include "openssl_abi.h"
#include "owned.h"

namespace ztunnel {

enum Event { kAccept = 1, kOpen, kData, kEof, kError, kDrain };
enum Operation { kWrite = 1, kEnd, kClose, kReset, kResume, kAlert, kAbandon };
// First number of an ERROR that is no errno.
enum TlsFailure { kProtocol = -1, kAlertReceived = -2, kUntrusted = -3 };

constexpr size_t kHeadroomBytes = 16;
// Who reads less is answered before those who read this much or more.
constexpr ssize_t kBulkReadBytes = 8 << 10;
// Of the peer, then of the original destination, where ACCEPT points to.
constexpr size_t kAddressBytes = 20;
// Longest plaintext of a TLS record.
constexpr size_t kRecordBytes = 16 << 10;
// Longest record with all that TLS 1.2 may add (RFC 5246 section 6.2.3).
constexpr size_t kCipherRecordBytes = kRecordBytes + 2048 + 5;

class Reactor;

struct Connection {
  enum Flag : uint16_t {
    kListener = 1,
    kConnecting = 2,
    // A tunnel whose handshake is not done.
    kHandshake = 4,
    kServer = 8,
    // A listener that ran out of something.
    kPaused = 16,
    // The peer sends no more.
    kAtEnd = 32,
    // We write no more; kShut when the kernel knows it.
    kEnding = 64,
    kShut = 128,
    // EPOLLHUP was seen: the set would report it for ever.
    kHungUp = 256,
    kFailed = 512,
    kInSet = 1024,
    kDirty = 2048,
    // The peer had answered when connect() returned; OPEN is about to be told.
    kAnswered = 4096,
    // A listener whose connections were redirected here.
    kRedirected = 8192,
  };
  bool Is(unsigned any) const { return (flags & any) != 0; }

  Reactor* reactor = nullptr;
  int32_t id = 0;
  int fd = -1;
  uint16_t flags = 0;
  // Its last read was long.
  bool is_bulk = false;
  uint32_t interest = 0;
  ByteQueue queue;

  // Tunnels: small writes of this batch, which share a record, and bytes under the current key.
  Owned<SSL, SSL_free> ssl;
  Block<uint8_t> stage;
  size_t staged_bytes = 0;
  uint64_t key_bytes = 0;
  Connection* next_dirty = nullptr;

  // What ERROR tells; no words for an errno.
  int32_t failure = 0;
  int32_t failure_detail = 0;
  Block<char> words;
  Connection* next_untold = nullptr;
};

}  // namespace ztunnel
