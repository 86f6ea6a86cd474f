// Memory that JavaScript and the addon both see.
#pragma once

#include <node_api.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace ztunnel {

// Blocks of zeroed whole pages, each followed by a page that nobody may touch. Lives until its maker
// and every array that was made of it have let go, so a view kept by JavaScript is never a dangling
// one.
class SharedMemory {
 public:
  static constexpr size_t kBlocksMax = 5;

  // Returns nullptr when there is no memory. The caller must Release() it.
  static SharedMemory* Map(std::initializer_list<size_t> block_bytes);
  void Release();

  uint8_t* Bytes(size_t block) const { return blocks_[block].data; }
  int32_t* Numbers(size_t block) const { return reinterpret_cast<int32_t*>(blocks_[block].data); }

  // A typed array over a block; once for each. Returns nullptr with an exception on failure.
  napi_value ToArray(napi_env env, size_t block, napi_typedarray_type type);

 private:
  struct Block {
    uint8_t* data;
    size_t bytes;
  };

  SharedMemory() = default;

  std::atomic<int> owners_{1};
  void* start_ = nullptr;
  size_t total_bytes_ = 0;
  Block blocks_[kBlocksMax] = {};
};

}  // namespace ztunnel
