// The export table.
#include <cerrno>

#include "functions.h"
#include "napi_support.h"
#include "netns.h"

namespace {

struct Export {
  const char* name;
  napi_callback function;
};

constexpr Export kExports[] = {
    {"socketInNamespace", ztunnel::SocketInNamespace},
    {"setSocketOptions", ztunnel::SetSocketOptions},
    {"acceptConnection", ztunnel::AcceptConnection},
    {"originalDestination", ztunnel::OriginalDestination},
    {"localAddress", ztunnel::LocalAddress},
    {"peerAddress", ztunnel::PeerAddress},
    {"connectSeqpacket", ztunnel::ConnectSeqpacket},
    {"listenSeqpacket", ztunnel::ListenSeqpacket},
    {"acceptSeqpacket", ztunnel::AcceptSeqpacket},
    {"receivePacket", ztunnel::ReceivePacket},
    {"sendPacket", ztunnel::SendPacket},
    {"watchReadable", ztunnel::WatchReadable},
    {"releaseResidentMemory", ztunnel::ReleaseResidentMemory},
    {"createReactor", ztunnel::CreateReactor},
};

void DeleteEnvironment(napi_env, void* data, void*) {
  delete static_cast<ztunnel::Environment*>(data);
}

}  // namespace

NAPI_MODULE_INIT() {
  auto* environment = new ztunnel::Environment{ztunnel::OpenHomeNetns()};
  napi_set_instance_data(env, environment, DeleteEnvironment, nullptr);
  if (!environment->home.IsOpen()) {
    return ztunnel::ThrowErrno(env, errno, "open", "/proc/thread-self/ns/net");
  }
  for (const Export& item : kExports) {
    napi_value function = nullptr;
    napi_create_function(env, item.name, NAPI_AUTO_LENGTH, item.function, nullptr, &function);
    ztunnel::SetProperty(env, exports, item.name, function);
  }
  return exports;
}
