// Bytes that wait for the kernel to take them.
#pragma once

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
    if (count > capacity_ - end_ && start_ > 0) {
      memmove(data_, data_ + start_, Size());
      end_ -= start_;
      start_ = 0;
    }
    if (count > capacity_ - end_) {
      size_t wanted = std::max({end_ + count, capacity_ * 2, kCapacityMin});
      void* grown = realloc(data_, wanted);
      if (grown == nullptr) return false;
      data_ = static_cast<uint8_t*>(grown);
      capacity_ = wanted;
    }
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
    free(data_);
    data_ = nullptr;
    start_ = end_ = capacity_ = 0;
  }

 private:
  static constexpr size_t kCapacityMin = 16 << 10;

  uint8_t* data_ = nullptr;
  // 0 <= start_ <= end_ <= capacity_
  size_t start_ = 0;
  size_t end_ = 0;
  size_t capacity_ = 0;
};

}  // namespace ztunnel
