#include "shared_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <new>

namespace ztunnel {
namespace {

size_t PageBytes() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

size_t InPages(size_t bytes) { return (bytes + PageBytes() - 1) / PageBytes() * PageBytes(); }

}  // namespace

// The object itself is at the start of the mapping.
SharedMemory* SharedMemory::Map(size_t bytes) {
  // Each block is rounded up and has a page behind it.
  const size_t total = InPages(bytes) + (2 * kBlocksMax + 1) * PageBytes();
  void* start =
      mmap(nullptr, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) return nullptr;
  if (mprotect(start, PageBytes(), PROT_READ | PROT_WRITE) != 0) {
    munmap(start, total);
    return nullptr;
  }
  auto* memory = new (start) SharedMemory;
  memory->total_bytes_ = total;
  memory->next_ = static_cast<uint8_t*>(start) + PageBytes();
  return memory;
}

void* SharedMemory::Take(size_t bytes) {
  void* block = next_;
  if (mprotect(block, InPages(bytes), PROT_READ | PROT_WRITE) != 0) return nullptr;
  next_ += InPages(bytes) + PageBytes();
  return block;
}

void SharedMemory::Leave() {
  if (--owners_ == 0) munmap(this, total_bytes_);
}

napi_value SharedMemory::ToArray(napi_env env, void* block, napi_typedarray_type type,
                                 size_t length) {
  const size_t bytes = type == napi_int32_array ? length * sizeof(int32_t) : length;
  auto is_gone = [](napi_env, void*, void* memory) { static_cast<SharedMemory*>(memory)->Leave(); };
  napi_value buffer = nullptr, array = nullptr;
  Join();
  if (napi_create_external_arraybuffer(env, block, bytes, is_gone, this, &buffer) != napi_ok) {
    Leave();
    napi_throw_error(env, nullptr, "this Node can't share memory with an addon");
    return nullptr;
  }
  napi_create_typedarray(env, type, length, buffer, 0, &array);
  return array;
}

}  // namespace ztunnel
