// One socket of a reactor: a listener, a plain connection or a tunnel.
#pragma once

#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/types.h>

#include <cstdint>

#include "byte_queue.h"
#include "owned.h"
#include "tls_context.h"

namespace ztunnel {

enum Event { kAccept = 1, kOpen, kData, kEof, kError, kDrain };
enum Operation { kWrite = 1, kEnd, kClose, kReset, kResume, kAlert };

constexpr size_t kHeadroomBytes = 16;
// Who reads less is answered before those who read this much or more.
constexpr ssize_t kLongReadBytes = 8 << 10;
// Of the peer, then of the original destination, where ACCEPT points to: as the kernel has them.
constexpr socklen_t kAddressBytes = sizeof(sockaddr_in6);
// Longest plaintext of a TLS record.
constexpr size_t kRecordBytes = 16 << 10;
// Bits of an id: generation above, slot below; ids are positive.
constexpr int kSlotBits = 16;
constexpr uint16_t kGenerationMask = 0x7fff;

// Of epoll. Where the end, an error or urgent bytes are behind, a read that was short has not emptied it.
constexpr uint32_t kBehind = EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI;
constexpr uint32_t kReadable = EPOLLIN | kBehind;
constexpr uint32_t kWritable = EPOLLOUT;

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
    kPaused = 16,
    // The peer sends no more.
    kAtEnd = 32,
    // We write no more.
    kEnding = 64,
    kFailed = 128,
    // JavaScript knows that it failed.
    kTold = 256,
    // JavaScript waits for DRAIN. An operation of this batch may be what empties the queue.
    kOwesDrain = 512,
  };
  bool Is(unsigned any) const { return (flags & any) != 0; }
  void Clear(Flag flag) { flags &= static_cast<uint16_t>(~flag); }
  uint16_t Slot() const { return static_cast<uint16_t>(id); }

  Reactor* reactor = nullptr;
  int32_t id = 0;
  int fd = -1;
  uint16_t flags = 0;
  // Its last read was long.
  bool is_long = false;
  // Of epoll: what may be done, until a system call shows that it may not.
  uint32_t ready = 0;
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
