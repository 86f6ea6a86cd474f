// The export table.
#include <fcntl.h>

#include <cerrno>

#include "functions.h"
#include "napi_support.h"

namespace {

constexpr ztunnel::Method kFunctions[] = {
    {"socketInNamespace", ztunnel::SocketInNamespace},
    {"openInNamespace", ztunnel::OpenInNamespace},
    {"loadQueueMigration", ztunnel::LoadQueueMigration},
    {"accept", ztunnel::Accept},
    {"connect", ztunnel::Connect},
    {"socketPair", ztunnel::SocketPair},
    {"originalDestination", ztunnel::OriginalDestination},
    {"localAddress", ztunnel::LocalAddress},
    {"peerAddress", ztunnel::PeerAddress},
    {"socketOption", ztunnel::SocketOption},
    {"connectSeqpacket", ztunnel::ConnectSeqpacket},
    {"listenSeqpacket", ztunnel::ListenSeqpacket},
    {"receivePacket", ztunnel::ReceivePacket},
    {"sendPacket", ztunnel::SendPacket},
    {"watchReadable", ztunnel::WatchReadable},
    {"releaseResidentMemory", ztunnel::ReleaseResidentMemory},
    {"forbidMemoryDumps", ztunnel::ForbidMemoryDumps},
    {"createReactor", ztunnel::CreateReactor},
    {"makeTlsContext", ztunnel::MakeTlsContext},
    {"tlsText", ztunnel::TlsText},
};

void DeleteEnvironment(napi_env, void* data, void*) {
  delete static_cast<ztunnel::Environment*>(data);
}

}  // namespace

NAPI_MODULE_INIT() {
  constexpr char kHome[] = "/proc/thread-self/ns/net";
  auto* environment = new ztunnel::Environment{ztunnel::UniqueFd(open(kHome, O_RDONLY | O_CLOEXEC))};
  napi_set_instance_data(env, environment, DeleteEnvironment, nullptr);
  if (!environment->home.IsOpen()) return ztunnel::ThrowErrno(env, errno, "open", kHome);
  ztunnel::AddMethods(env, exports, kFunctions);
  return exports;
}
