// Sockets and tunnels of one thread, in one epoll set, in batches; src/net/reactor.ts tells what each
// event, operation and method means.
#pragma once

#include <sys/epoll.h>
#include <sys/uio.h>
#include <uv.h>

#include <cstdint>
#include <utility>

#include "functions.h"
#include "napi_support.h"
#include "owned.h"
#include "reactor_connection.h"
#include "tls_context.h"
#include "unique_fd.h"

namespace ztunnel {

// As JavaScript lists them.
struct ReactorSizes {
  size_t arena_bytes, scratch_bytes, events_max, operations_max, connections_max;
  size_t plain_read_bytes, cipher_read_bytes, cipher_send_bytes, accepts_per_turn;
  size_t queue_bytes_max, rekey_bytes;
};

class Reactor {
 public:
  // Joins the loop of this thread, which has no other. Returns an errno, 0 when all is well.
  int Open(napi_env env, const ReactorSizes& sizes, const Bytes& memory, napi_value turn);
  // Closes everything; deletes itself when libuv has let go of it.
  void Close();

  // Takes a descriptor, on success; otherwise returns nullptr with errno.
  Connection* Add(int fd, unsigned flags);
  Connection* Find(int32_t id) const;
  // Returns false when OpenSSL refuses; its errors tell why.
  bool StartTls(Connection* connection, SSL_CTX* context, bool server);
  // Returns false when the list is not that long.
  bool Perform(uint32_t operation_count);

 private:
  // Of slots that wait for something, first come first served, each once, also when its connection has
  // changed.
  enum ListName {
    kFree,
    // Tunnels with something staged.
    kStaged,
    // With events or a failure to tell, by what they read last.
    kShort,
    kLong,
    kLists,
  };
  struct List {
    uint16_t last, length;
  };
  struct Slot {
    Connection* connection;
    uint16_t generation;
    // The next of each list, after the last the first; 0 when the slot is not in it.
    uint16_t next[kLists];
  };

  // reactor.cc
  static void LetGo(uv_handle_t* prepare);

  // reactor_loop.cc
  void RunBatches();
  // Returns whether libuv has events, too.
  bool RunBatch(int timeout_ms);
  void Dispatch(uint16_t slot);
  // Tells JavaScript now when the arena or the list of events lacks room. May close any connection.
  void Reserve(size_t arena_bytes);
  // The arena is in use up to there; what comes next begins at a multiple of 16.
  void Occupy(size_t end) { arena_used_ = std::min((end + 15) & ~size_t{15}, sizes_.arena_bytes); }
  void Emit(Event kind, int32_t id, int64_t a = 0, int64_t b = 0);
  void Deliver();

  // reactor_connection.cc
  void Add(ListName name, uint16_t slot);
  // Answers 0 when the list is empty.
  uint16_t TakeFrom(ListName name);
  bool HasRoom() const {
    return lists_[kFree].length > 0 || slots_used_ < sizes_.connections_max;
  }
  bool WantsRead(const Connection& connection) const;
  // In the next batch, when something is there.
  void ReadSoon(Connection* connection);
  void Fail(Connection* connection, int failure, int detail = 0);
  void Close(Connection* connection);
  void Forget(Connection* connection);
  void Send(Connection* connection, iovec* pieces, size_t piece_count);
  void Enqueue(Connection* connection, const void* bytes, size_t count);
  void Flush(Connection* connection);
  void FinishEnding(Connection* connection);
  void TellPending(Connection& connection) {
    const size_t size = connection.queue.Size();
    pending_[connection.Slot()] = static_cast<int32_t>(size);
    if (size > 0) connection.flags |= Connection::kOwesDrain;
  }

  // reactor_plain.cc
  void Accept(Connection* listener);
  // An error of the socket, or the end of connecting it.
  void AskSocket(Connection* connection);
  void Read(Connection* connection);

  // reactor_operations.cc
  bool InArena(int32_t offset, int32_t length) const;
  bool PerformOne(Connection* connection, const int32_t* operation);
  uint32_t WritePlain(Connection* connection, uint32_t first, uint32_t operation_count);

  // reactor_tls.cc
  static int ReadCipher(BIO* bio, char* into, int count);
  static int WriteCipher(BIO* bio, const char* bytes, int count);
  static long ControlCipher(BIO* bio, int command, long number, void* pointer);
  void Handshake(Connection* connection);
  void ReceiveCipher(Connection* connection, size_t count);
  void Decrypt(Connection* connection);
  bool WriteTunnel(Connection* connection, const uint8_t* bytes, size_t count);
  void Encrypt(Connection* connection, const uint8_t* bytes, size_t count);
  void EndTunnel(Connection* connection, int alert);
  void EncryptStage(Connection* connection);
  void FailTls(Connection* connection);

  napi_env env_ = nullptr;
  napi_ref turn_ = nullptr;
  napi_ref memory_ = nullptr;
  napi_async_cleanup_hook_handle cleanup_ = nullptr;
  uv_loop_t* loop_ = nullptr;
  // Runs the batches, before libuv would wait.
  uv_prepare_t prepare_ = {};
  // While active, libuv does not wait.
  uv_idle_t idle_ = {};
  UniqueFd epoll_;

  ReactorSizes sizes_ = {};
  // Blocks of the memory. The place of nobody, slot 0, has a use of its own: in `pending_` it counts
  // the operations that were ignored, in `credit_` it tells what a batch may read.
  int32_t* events_ = nullptr;
  int32_t* operations_ = nullptr;
  int32_t* pending_ = nullptr;
  int32_t* credit_ = nullptr;
  uint8_t* arena_ = nullptr;
  // What each read of this batch takes at most, within the options.
  size_t read_bytes_max_ = 0;
  size_t arena_used_ = 0;
  uint32_t event_count_ = 0;
  bool closed_ = false;

  Block<Slot> slots_;
  uint32_t slots_used_ = 0;
  List lists_[kLists] = {};

  Owned<BIO_METHOD, BIO_meth_free> bio_method_;
  // Ciphertext just received, read by OpenSSL within the same call.
  Block<uint8_t> received_;
  size_t received_start_ = 0;
  size_t received_end_ = 0;
};

}  // namespace ztunnel
