#include "shared_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <new>

namespace ztunnel {
namespace {

void ArrayIsGone(napi_env, void*, void* memory) { static_cast<SharedMemory*>(memory)->Release(); }

}  // namespace

SharedMemory* SharedMemory::Map(std::initializer_list<size_t> block_bytes) {
  auto* memory = new (std::nothrow) SharedMemory;
  if (memory == nullptr) return nullptr;
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  auto pages = [page](size_t bytes) { return (bytes + page - 1) / page * page; };
  for (size_t bytes : block_bytes) memory->total_bytes_ += pages(bytes) + page;

  void* start = mmap(nullptr, memory->total_bytes_, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) {
    delete memory;
    return nullptr;
  }
  memory->start_ = start;
  auto* next = static_cast<uint8_t*>(start);
  size_t index = 0;
  for (size_t bytes : block_bytes) {
    if (mprotect(next, pages(bytes), PROT_READ | PROT_WRITE) != 0) {
      memory->Release();
      return nullptr;
    }
    memory->blocks_[index++] = {next, bytes};
    next += pages(bytes) + page;
  }
  return memory;
}

void SharedMemory::Release() {
  if (--owners_ > 0) return;
  munmap(start_, total_bytes_);
  delete this;
}

napi_value SharedMemory::ToArray(napi_env env, size_t block, napi_typedarray_type type) {
  const auto& [data, bytes] = blocks_[block];
  napi_value buffer = nullptr, array = nullptr;
  ++owners_;
  if (napi_create_external_arraybuffer(env, data, bytes, ArrayIsGone, this, &buffer) != napi_ok) {
    --owners_;
    napi_throw_error(env, nullptr, "this Node can't share memory with an addon");
    return nullptr;
  }
  size_t length = type == napi_int32_array ? bytes / sizeof(int32_t) : bytes;
  napi_create_typedarray(env, type, length, buffer, 0, &array);
  return array;
}

}  // namespace ztunnel
