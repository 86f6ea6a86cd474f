// Sockets and tunnels of one thread, in one epoll set, in batches; src/net/reactor.ts tells what each
// event, operation and method means.
#pragma once

#include <node_api.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <uv.h>

#include <cstdint>
#include <string>

#include "address.h"
#include "functions.h"
#include "reactor_connection.h"
#include "owned.h"
#include "shared_memory.h"
#include "tls_context.h"
#include "unique_fd.h"

namespace ztunnel {

struct ReactorSizes {
  size_t arena_bytes, scratch_bytes, events_max, operations_max, connections_max;
  size_t plain_read_bytes, cipher_read_bytes, cipher_send_bytes, accepts_per_turn;
  size_t queue_bytes_max, rekey_bytes;
};

class Reactor {
 public:
  // Returns nullptr with an exception on failure.
  static Reactor* Make(napi_env env, const ReactorSizes& sizes, napi_value turn);
  // Sets what JavaScript sees of its memory. Returns false with an exception.
  bool AddArrays(napi_value object);
  // Closes everything; deletes the reactor when libuv has let go of it.
  void Close();

  // Return the new id, or 0 with errno; the descriptor is the reactor's on success only.
  int32_t Listen(int fd, bool redirected);
  int32_t Connect(int fd, const Address& address);
  // Two connections to each other. Returns false with errno.
  bool Pair(int32_t (&ids)[2]);

  Connection* Find(int32_t id) const;
  // Returns false when OpenSSL refuses; its errors tell why.
  bool StartTls(Connection* connection, SSL_CTX* context, bool server);
  void Perform(uint32_t operation_count);
  // To be called when JavaScript called, not the loop: failures are told in the next batch.
  void WakeUp();

  SharedMemory* Memory() const { return memory_; }
  const ReactorSizes& Sizes() const { return sizes_; }

 private:
  // Descriptors of one batch.
  static constexpr int kReadyMax = 256;
  struct Slot {
    Connection* connection;
    uint16_t generation;
    uint16_t next_free;
  };

  Reactor() = default;
  ~Reactor();

  // reactor.cc
  int Prepare(napi_env env, const ReactorSizes& sizes, napi_value turn);
  int JoinLoop();
  void LetGo(uv_handle_t* handle);
  void DropReferences();

  // reactor_loop.cc
  void RunBatches();
  // Returns whether libuv has events, too.
  bool RunBatch(int timeout_ms);
  void Dispatch(const epoll_event& ready);
  // Tells JavaScript now when the arena or the list of events lacks room. May close any connection.
  void Reserve(size_t arena_bytes);
  // The arena is in use up to there; what comes next begins at a multiple of 16.
  void Occupy(size_t end);
  void Emit(Event kind, int32_t id, int64_t a = 0, int64_t b = 0);
  void Deliver();
  void TellUntold();
  // Decides what to wait for when JavaScript has answered, which often makes it nothing.
  void SettleLater(Connection* connection);

  // reactor_connection.cc
  bool HasRoom() const;
  Connection* Add(int fd, unsigned flags);
  int32_t Take(int fd, unsigned flags, uint32_t interest);
  bool WantsRead(const Connection& connection) const;
  uint32_t WantedEvents(const Connection& connection) const;
  void UpdateInterest(Connection* connection);
  void LeaveSet(Connection* connection);
  void TellSoon(Connection* connection);
  void Fail(Connection* connection, int failure, int detail = 0, const std::string& words = "");
  void Close(Connection* connection);
  void Forget(Connection* connection);
  void Send(Connection* connection, iovec* pieces, size_t piece_count);
  void FlushQueue(Connection* connection);
  void FinishEnding(Connection* connection);
  void TellPending(const Connection& connection);

  // reactor_plain.cc
  void Accept(Connection* listener);
  void FinishConnect(Connection* connection);
  void Open(Connection* connection);
  void ReadPlain(Connection* connection);
  uint32_t WritePlain(Connection* connection, uint32_t first, uint32_t operation_count);

  // reactor_operations.cc
  bool InArena(int32_t offset, int32_t length) const;
  bool PerformOne(Connection* connection, const int32_t* operation);

  // reactor_tls.cc
  static int ReadCipher(BIO* bio, char* into, int count);
  static int WriteCipher(BIO* bio, const char* bytes, int count);
  static long ControlCipher(BIO* bio, int command, long number, void* pointer);
  void Handshake(Connection* connection);
  void ReadTunnel(Connection* connection);
  void Decrypt(Connection* connection);
  bool WriteTunnel(Connection* connection, const uint8_t* bytes, size_t count);
  bool Stage(Connection* connection, const uint8_t* bytes, size_t count);
  void Encrypt(Connection* connection, const uint8_t* bytes, size_t count);
  void EndTunnel(Connection* connection);
  void AlertTunnel(Connection* connection, int alert);
  void MarkDirty(Connection* connection);
  // Encrypts what is staged and sends what is encrypted.
  void FlushTunnel(Connection* connection);
  void FlushStage(Connection* connection);
  void FlushCipher();
  void FlushDirty();
  void FailTls(Connection* connection);

  napi_env env_ = nullptr;
  napi_ref turn_ = nullptr;
  napi_async_context async_context_ = nullptr;
  napi_async_cleanup_hook_handle cleanup_ = nullptr;
  Environment* environment_ = nullptr;
  uv_loop_t* loop_ = nullptr;
  // Runs the batches, before libuv would wait.
  uv_prepare_t prepare_ = {};
  // While active, nobody waits.
  uv_idle_t idle_ = {};
  // Lets libuv wait for the set of a thread's further reactors.
  uv_poll_t poll_ = {};
  int open_handles_ = 0;
  UniqueFd epoll_;

  ReactorSizes sizes_ = {};
  SharedMemory* memory_ = nullptr;
  // Blocks of it. The place of nobody, slot 0, has a use of its own: in `pending_` it counts the
  // operations that were ignored, in `credit_` it tells what a batch may read.
  int32_t* events_ = nullptr;
  int32_t* operations_ = nullptr;
  int32_t* pending_ = nullptr;
  int32_t* credit_ = nullptr;
  uint8_t* arena_ = nullptr;
  // What each read of this batch takes at most, within the options.
  size_t read_bytes_max_ = 0;
  size_t arena_used_ = 0;
  uint32_t event_count_ = 0;
  // Ids whose interest is looked at when the batch is over.
  int32_t unsettled_[kReadyMax] = {};
  int unsettled_count_ = 0;
  bool in_batch_ = false;
  bool closed_ = false;

  Block<Slot> slots_;
  uint16_t free_slot_ = 0;
  uint32_t slots_used_ = 0;
  Connection* dirty_ = nullptr;
  Connection* untold_ = nullptr;

  Owned<BIO_METHOD, BIO_meth_free> bio_method_;
  // Ciphertext just received, and whose it is; read by OpenSSL within the same call.
  Block<uint8_t> received_;
  size_t received_start_ = 0;
  size_t received_end_ = 0;
  Connection* receiver_ = nullptr;
  // Ciphertext about to be sent, and whose it is.
  Block<uint8_t> encrypted_;
  size_t encrypted_bytes_ = 0;
  Connection* sender_ = nullptr;
  // Stages that no tunnel uses at the moment.
  static constexpr size_t kSpareStagesMax = 64;
  Block<uint8_t> spare_stages_[kSpareStagesMax];
  size_t spare_stage_count_ = 0;
};

}  // namespace ztunnel
