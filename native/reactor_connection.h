// One socket of a reactor: a listener, a plain connection or a tunnel.
#pragma once

#include <netinet/in.h>
#include <sys/types.h>

#include <cstdint>

#include "byte_queue.h"
#include "owned.h"
#include "tls_context.h"

namespace ztunnel {

enum Event { kAccept = 1, kOpen, kData, kEof, kError, kDrain };
enum Operation { kWrite = 1, kEnd, kClose, kReset, kResume, kAlert, kAbandon };

constexpr size_t kHeadroomBytes = 16;
// Who reads less is answered before those who read this much or more.
constexpr ssize_t kBulkReadBytes = 8 << 10;
// Of the peer, then of the original destination, where ACCEPT points to: as the kernel has them.
constexpr socklen_t kAddressBytes = sizeof(sockaddr_in6);
// Longest plaintext of a TLS record.
constexpr size_t kRecordBytes = 16 << 10;
// Longest record with all that TLS 1.2 may add (RFC 5246 section 6.2.3).
constexpr size_t kCipherRecordBytes = kRecordBytes + 2048 + 5;
// Bits of an id: generation above, slot below; ids are positive.
constexpr int kSlotBits = 16;
constexpr uint16_t kGenerationMask = 0x7fff;

class Reactor;

struct Connection {
  enum Flag : uint16_t {
    kListener = 1,
    kConnecting = 2,
    // A listener whose connections were redirected here.
    kRedirected = 4,
    // What JavaScript says of a descriptor.
    kKinds = kListener | kConnecting | kRedirected,
    // A tunnel whose handshake is not done.
    kHandshake = 8,
    // A listener that ran out of something.
    kPaused = 32,
    // The peer sends no more.
    kAtEnd = 64,
    // We write no more.
    kEnding = 128,
    // EPOLLHUP was seen: the set would report it for ever.
    kHungUp = 512,
    kFailed = 1024,
    kInSet = 2048,
    // The peer had answered when connect() returned; OPEN is about to be told.
    kAnswered = 4096,
  };
  bool Is(unsigned any) const { return (flags & any) != 0; }
  void Clear(Flag flag) { flags &= static_cast<uint16_t>(~flag); }
  uint16_t Slot() const { return static_cast<uint16_t>(id); }

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

  // What ERROR tells.
  int32_t failure = 0;
  int32_t failure_detail = 0;
};

}  // namespace ztunnel
