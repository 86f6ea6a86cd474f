// A descriptor that closes itself unless released.
#pragma once

#include <unistd.h>

namespace ztunnel {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  UniqueFd(UniqueFd&& other) : fd_(other.Release()) {}
  UniqueFd& operator=(UniqueFd&& other) {
    Close();
    fd_ = other.Release();
    return *this;
  }
  ~UniqueFd() { Close(); }

  int Get() const { return fd_; }
  bool IsOpen() const { return fd_ >= 0; }

  // The caller owns the descriptor from now on.
  int Release() {
    int fd = fd_;
    fd_ = -1;
    return fd;
  }

 private:
  void Close() {
    if (fd_ >= 0) close(fd_);
  }

  int fd_ = -1;
};

}  // namespace ztunnel
