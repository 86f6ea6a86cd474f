// Bytes that wait for the kernel to take them.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace ztunnel {

// Has no memory while it is empty.
class ByteQueue {
 public:
  ByteQueue() = default;
  ByteQueue(const ByteQueue&) = delete;
  ByteQueue& operator=(const ByteQueue&) = delete;
  ~ByteQueue() { Clear(); }

  const uint8_t* Data() const { return data_ + start_; }
  size_t Size() const { return end_ - start_; }

  // Returns false when there is no memory; nothing is appended then.
  bool Append(const uint8_t* bytes, size_t count) {
    if (count > capacity_ - end_ && !Move(std::max(2 * Size() + count, kCapacityMin))) return false;
    memcpy(data_ + end_, bytes, count);
    end_ += count;
    return true;
  }

  // Forgets the first bytes. `count` is at most Size().
  void Consume(size_t count) {
    start_ += count;
    if (start_ == end_) Clear();
  }

  void Clear() {
    if (capacity_ < kMappedMin) {
      free(data_);
    } else {
      munmap(data_, capacity_);
    }
    data_ = nullptr;
    start_ = end_ = capacity_ = 0;
  }

 private:
  // What one read may leave, so that it rarely moves; pages that are not touched cost nothing.
  static constexpr size_t kCapacityMin = 256 << 10;
  // From here on a mapping of its own: the heap of a worker thread keeps what was freed, all that a
  // burst once needed. Below, the heap is faster than the page faults of a new mapping.
  static constexpr size_t kMappedMin = 1 << 20;

  // To memory of its own.
  bool Move(size_t capacity) {
    void* fresh = capacity < kMappedMin ? malloc(capacity)
                                        : mmap(nullptr, capacity, PROT_READ | PROT_WRITE,
                                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fresh == nullptr || fresh == MAP_FAILED) return false;
    const size_t size = Size();
    if (size > 0) memcpy(fresh, Data(), size);
    Clear();
    data_ = static_cast<uint8_t*>(fresh);
    end_ = size;
    capacity_ = capacity;
    return true;
  }

  uint8_t* data_ = nullptr;
  // 0 <= start_ <= end_ <= capacity_
  size_t start_ = 0;
  size_t end_ = 0;
  size_t capacity_ = 0;
};

}  // namespace ztunnel
