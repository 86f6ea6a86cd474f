// What happens to connections that wait in the queue of a listening socket when it is closed.
#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

#include "functions.h"

namespace ztunnel {

// BPF_SK_REUSEPORT_SELECT_OR_MIGRATE, which older headers lack.
constexpr uint32_t kSelectOrMigrate = 40;

// Takes the place of the kernel's choice among the sockets of a port, and leaves the choice to the
// kernel. What it is for is its type: where it is attached, a socket that is closed hands what it has
// not accepted, and handshakes that are under way, to the others of its port (Linux 5.14).
int LoadQueueMigration() {
  bpf_insn program[] = {
      {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, SK_PASS},
      {BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
  };
  bpf_attr attributes = {};
  attributes.prog_type = BPF_PROG_TYPE_SK_REUSEPORT;
  attributes.expected_attach_type = kSelectOrMigrate;
  attributes.insns = reinterpret_cast<uintptr_t>(program);
  attributes.insn_cnt = sizeof(program) / sizeof(program[0]);
  attributes.license = reinterpret_cast<uintptr_t>("MIT");
  // Close-on-exec, as all descriptors of bpf() are.
  return static_cast<int>(syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof(attributes)));
}

}  // namespace ztunnel
