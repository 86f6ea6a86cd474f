// Memory and objects of OpenSSL that free themselves.
#pragma once

#include <cstdlib>
#include <memory>

namespace ztunnel {

template <auto kFree>
struct Freeing {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};

template <typename T, auto kFree>
using Owned = std::unique_ptr<T, Freeing<kFree>>;

template <typename T>
using Block = std::unique_ptr<T[], Freeing<free>>;

// Zeroed; nullptr when there is no memory.
template <typename T>
Block<T> Allocate(size_t count) {
  return Block<T>(static_cast<T*>(calloc(count, sizeof(T))));
}

}  // namespace ztunnel
