// The export table.
#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "functions.h"

namespace ztunnel {
namespace {

struct Function {
  const char* name;
  napi_callback call;
};

constexpr Function kFunctions[] = {
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
  if (!environment->home.IsOpen()) {
    return ThrowText(env, std::string("can't open ") + kHome + ": " + strerror(errno));
  }
  for (const auto& [name, call] : kFunctions) {
    napi_value function = nullptr;
    napi_create_function(env, name, NAPI_AUTO_LENGTH, call, nullptr, &function);
    napi_set_named_property(env, exports, name, function);
  }
  return exports;
}

}  // namespace ztunnel
