// What the addon exports; src/net/system-calls.ts, reactor.ts and tls-context.ts tell what each function
// takes and answers.
#pragma once

#include <node_api.h>

#include <cerrno>
#include <map>

#include "napi_support.h"
#include "unique_fd.h"

namespace ztunnel {

class Reactor;
struct Watch;

// State of one JavaScript environment: the main thread or one worker.
struct Environment {
  // The namespace of the environment's thread.
  UniqueFd home;
  // What this thread waits in, if anything.
  Reactor* reactor = nullptr;
  // By the descriptors that they watch.
  std::map<int, Watch*> watches = {};
};

inline Environment* EnvironmentOf(napi_env env) {
  void* environment = nullptr;
  napi_get_instance_data(env, &environment);
  return static_cast<Environment*>(environment);
}

// These answer as system calls do, -1 with errno on failure.
inline int FailWith(int error) {
  errno = error;
  return -1;
}
int SocketIn(napi_env env, int netns, int family, int type, int protocol);
int OpenIn(napi_env env, int netns, Bytes path);
int SocketPair(Bytes fds);
int SetOptions(int fd, Bytes options);
int Option(int fd, int level, int name, Bytes into);
int Bind(int fd, Bytes address);
int Connect(int fd, Bytes address);
int Accept(int fd);
int SocketName(int fd, Bytes into);
int PeerName(int fd, Bytes into);
int SendPacket(int fd, Bytes data, Bytes fds);
int ReceivePacket(int fd, Bytes into, Bytes extras);
int WatchReadable(napi_env env, int fd, napi_value readable);
int EndWatch(napi_env env, int fd);
int LoadQueueMigration();
int ReleaseResidentMemory();
int ForbidMemoryDumps();
int CreateReactor(napi_env env, Bytes memory, Bytes sizes, napi_value turn);
int CloseReactor(napi_env env);
int ReactorTake(napi_env env, int fd, int kind);
int ReactorFdOf(napi_env env, int id);
int ReactorStartTls(napi_env env, int id, napi_value context, int is_server);
int ReactorPeerChain(napi_env env, int id, Bytes into);
int ReactorFlush(napi_env env, int operation_count);
// These answer one of OpenSSL's errors, too.
int ConfigureTls(napi_env env, napi_value context, Bytes name, Bytes value);

napi_value MakeTlsContext(napi_env env, napi_callback_info info);
napi_value TlsText(napi_env env, napi_callback_info info);

}  // namespace ztunnel
