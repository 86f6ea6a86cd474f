// What is resident and not needed: freed pieces of the heap, program pages that nobody executes.
#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

#include "functions.h"

namespace ztunnel {
namespace {

// Segments that were never writable hold what the file holds: the page cache gives each page back
// when it is next touched. Others have been relocated and stay.
int ForgetSegments(dl_phdr_info* file, size_t, void*) {
  const uintptr_t page_mask = ~(static_cast<uintptr_t>(sysconf(_SC_PAGESIZE)) - 1);
  for (int i = 0; i < file->dlpi_phnum; i++) {
    const ElfW(Phdr)& segment = file->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) != 0) continue;
    const uintptr_t start = file->dlpi_addr + segment.p_vaddr;
    const uintptr_t begin = start & page_mask;
    const uintptr_t end = (start + segment.p_memsz) & page_mask;
    // A kernel that refuses leaves the pages where they are.
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  }
  return 0;
}

}  // namespace

int ReleaseResidentMemory() {
  malloc_trim(0);
  dl_iterate_phdr(ForgetSegments, nullptr);
  return 0;
}

}  // namespace ztunnel
