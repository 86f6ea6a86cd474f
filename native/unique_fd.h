// A descriptor that closes itself.
#pragma once

#include <unistd.h>

#include <utility>

namespace ztunnel {

class UniqueFd {
 public:
  explicit UniqueFd(int fd = -1) : fd_(fd) {}
  UniqueFd& operator=(UniqueFd&& other) {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~UniqueFd() {
    if (IsOpen()) close(fd_);
  }

  int Get() const { return fd_; }
  bool IsOpen() const { return fd_ >= 0; }

 private:
  int fd_;
};

}  // namespace ztunnel
