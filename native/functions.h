// What the addon exports; src/net/native.ts and reactor.ts tell what each function takes and answers.
#pragma once

#include <node_api.h>

#include "unique_fd.h"

namespace ztunnel {

class Reactor;

// State of one JavaScript environment: the main thread or one worker.
struct Environment {
  // The namespace of the environment's thread.
  UniqueFd home;
  // The reactor that this thread waits in.
  Reactor* waiting = nullptr;
};

napi_value SocketInNamespace(napi_env env, napi_callback_info info);
napi_value OpenInNamespace(napi_env env, napi_callback_info info);
napi_value LoadQueueMigration(napi_env env, napi_callback_info info);

napi_value Accept(napi_env env, napi_callback_info info);
napi_value Connect(napi_env env, napi_callback_info info);
napi_value SocketPair(napi_env env, napi_callback_info info);
napi_value OriginalDestination(napi_env env, napi_callback_info info);
napi_value LocalAddress(napi_env env, napi_callback_info info);
napi_value PeerAddress(napi_env env, napi_callback_info info);
napi_value SocketOption(napi_env env, napi_callback_info info);

napi_value ConnectSeqpacket(napi_env env, napi_callback_info info);
napi_value ListenSeqpacket(napi_env env, napi_callback_info info);
napi_value ReceivePacket(napi_env env, napi_callback_info info);
napi_value SendPacket(napi_env env, napi_callback_info info);

napi_value WatchReadable(napi_env env, napi_callback_info info);

napi_value ReleaseResidentMemory(napi_env env, napi_callback_info info);
napi_value ForbidMemoryDumps(napi_env env, napi_callback_info info);

napi_value CreateReactor(napi_env env, napi_callback_info info);
napi_value MakeTlsContext(napi_env env, napi_callback_info info);
napi_value TlsText(napi_env env, napi_callback_info info);

}  // namespace ztunnel
