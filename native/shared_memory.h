// Memory that JavaScript and the addon both see.
#pragma once

#include <node_api.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace ztunnel {

class Reactor;

// Blocks of zeroed whole pages, each followed by a page that nobody may touch. Lives until its maker,
// every array and every method that was made of it have let go, so a view kept by JavaScript is never
// a dangling one.
class SharedMemory {
 public:
  static constexpr size_t kBlocksMax = 5;

  // For blocks of so many bytes together. Returns nullptr when there is no memory. The caller must
  // Leave() it.
  static SharedMemory* Map(size_t bytes);
  void Join() { ++owners_; }
  void Leave();

  // The next block; nullptr when there is no memory.
  void* Take(size_t bytes);
  // A typed array over a block; once for each. Returns nullptr with an exception on failure.
  napi_value ToArray(napi_env env, void* block, napi_typedarray_type type, size_t length);

  // Whose methods find it here; nullptr when it is closed.
  Reactor* reactor = nullptr;

 private:
  SharedMemory() = default;

  std::atomic<int> owners_{1};
  size_t total_bytes_ = 0;
  uint8_t* next_ = nullptr;
};

}  // namespace ztunnel
