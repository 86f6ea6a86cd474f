// The export table.
#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>

#include "functions.h"

namespace ztunnel {
namespace {

constexpr Method kFunctions[] = {
    {"socketIn", Call<SocketIn>},
    {"openIn", Call<OpenIn>},
    {"socketPair", Call<SocketPair>},
    {"setOptions", Call<SetOptions>},
    {"option", Call<Option>},
    {"bind", Call<Bind>},
    {"listen", Call<listen>},
    {"connect", Call<Connect>},
    {"accept", Call<Accept>},
    {"socketName", Call<SocketName>},
    {"peerName", Call<PeerName>},
    {"sendPacket", Call<SendPacket>},
    {"receivePacket", Call<ReceivePacket>},
    {"watchReadable", Call<WatchReadable>},
    {"endWatch", Call<EndWatch>},
    {"loadQueueMigration", Call<LoadQueueMigration>},
    {"releaseResidentMemory", Call<ReleaseResidentMemory>},
    {"forbidMemoryDumps", Call<ForbidMemoryDumps>},
    {"createReactor", Call<CreateReactor>},
    {"closeReactor", Call<CloseReactor>},
    {"reactorTake", Call<ReactorTake>},
    {"reactorFdOf", Call<ReactorFdOf>},
    {"reactorStartTls", Call<ReactorStartTls>},
    {"reactorPeerChain", Call<ReactorPeerChain>},
    {"reactorFlush", Call<ReactorFlush>},
    {"makeTlsContext", MakeTlsContext},
    {"configureTls", Call<ConfigureTls>},
    {"tlsText", TlsText},
};

}  // namespace

NAPI_MODULE_INIT() {
  constexpr char kHome[] = "/proc/thread-self/ns/net";
  auto* environment = new Environment{UniqueFd(open(kHome, O_RDONLY | O_CLOEXEC))};
  auto is_gone = [](napi_env, void* data, void*) { delete static_cast<Environment*>(data); };
  napi_set_instance_data(env, environment, is_gone, nullptr);
  if (!environment->home.IsOpen()) return ThrowErrno(env, errno, "open", kHome);
  AddMethods(env, exports, kFunctions);
  return exports;
}

}  // namespace ztunnel
