// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/comm/nccl/nccl_backend.hpp>

#include <unistd.h>

#include <Kokkos_Core.hpp>
#include <array>
#include <cstdlib>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include <krait/comm/cuda_check.hpp>
#include <krait/comm/nccl/check.hpp>
#include <krait/comm/queue_mark.hpp>
#include <krait/core/error.hpp>

namespace krait::impl {

/// Owns an NCCL communicator and the stream of its messages. Ends with Kokkos at the latest.
class NcclHandle {
 public:
  /// \param id  the same on all ranks
  NcclHandle(const Place& place, ncclUniqueId id, int device) : device_(device) {
    use_device();
    int least = 0;
    int greatest = 0;
    KRAIT_CHECK_CUDA(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    // Messages are short and others wait for them.
    KRAIT_CHECK_CUDA(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest));
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 1;
    KRAIT_CHECK_NCCL(ncclCommInitRankConfig(&comm_, place.size, id, place.rank, &config));
  }
  NcclHandle(const NcclHandle&) = delete;
  NcclHandle& operator=(const NcclHandle&) = delete;
  ~NcclHandle() { close(); }

  [[nodiscard]] ncclComm_t comm() const { return comm_; }
  [[nodiscard]] cudaStream_t stream() const { return stream_; }

  void use_device() const { KRAIT_CHECK_CUDA(cudaSetDevice(device_)); }

  /// \throws CommError when messages fail, or have failed
  void check() const {
    KRAIT_REQUIRE(CommError, comm_ != nullptr, "krait::comm[nccl]: this communicator has been given up or closed");
    ncclResult_t failure = ncclSuccess;
    KRAIT_CHECK_NCCL(ncclCommGetAsyncError(comm_, &failure));
    check_nccl(failure, "an earlier message", std::source_location::current());
  }

  /// Ends all messages, here and, with an error, on the other ranks.
  void abort() noexcept {
    if (comm_ != nullptr) ncclCommAbort(std::exchange(comm_, nullptr));
  }

  void close() noexcept {
    if (stream_ == nullptr) return;
    cudaSetDevice(device_);
    ncclResult_t failure = ncclSuccess;
    if (comm_ != nullptr && (ncclCommGetAsyncError(comm_, &failure) != ncclSuccess || failure != ncclSuccess)) abort();
    cudaStreamSynchronize(stream_);
    if (comm_ != nullptr) ncclCommDestroy(std::exchange(comm_, nullptr));
    cudaStreamDestroy(std::exchange(stream_, nullptr));
  }

 private:
  int device_;
  cudaStream_t stream_ = nullptr;
  ncclComm_t comm_ = nullptr;
};

namespace {

/// Calls of NCCL that take effect together, at end().
class Group {
 public:
  Group() { KRAIT_CHECK_NCCL(ncclGroupStart()); }
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;
  ~Group() {
    if (open_) ncclGroupEnd();
  }
  void end() {
    open_ = false;
    KRAIT_CHECK_NCCL(ncclGroupEnd());
  }

 private:
  bool open_ = true;
};

class NcclMessages final : public QueuedMessages {
 public:
  explicit NcclMessages(std::shared_ptr<NcclHandle> handle) : handle_(std::move(handle)) {}

  void receive(int peer, std::byte* data, std::int64_t bytes) override {
    receives_.push_back({peer, data, static_cast<std::size_t>(bytes)});
  }
  void send(int peer, const std::byte* data, std::int64_t bytes) override {
    sends_.push_back({peer, data, static_cast<std::size_t>(bytes)});
  }

  void start(void* queue) override {
    handle_->check();
    handle_->use_device();
    if (queue != nullptr) {
      QueueMark ready;
      ready.record(queue);
      ready.precede(handle_->stream());
    }
    Group group;
    for (const auto& [peer, data, bytes] : receives_)
      KRAIT_CHECK_NCCL(ncclRecv(data, bytes, ncclUint8, peer, handle_->comm(), handle_->stream()));
    for (const auto& [peer, data, bytes] : sends_)
      KRAIT_CHECK_NCCL(ncclSend(data, bytes, ncclUint8, peer, handle_->comm(), handle_->stream()));
    group.end();
    done_.record(handle_->stream());
  }

  void precede(void* queue) override {
    if (queue == nullptr) return wait();
    done_.precede(queue);
  }

  bool test() override {
    if (done_.reached()) return true;
    handle_->check();  // a rank that has gone shows here only
    return false;
  }

  void wait() override {
    while (!test()) std::this_thread::yield();
  }

  bool abandon() noexcept override {
    try {
      if (done_.reached()) return true;
      handle_->abort();
      return done_.reached();
    } catch (...) {
      return false;
    }
  }

 private:
  struct Receive {
    int peer;
    std::byte* data;
    std::size_t bytes;
  };
  struct Send {
    int peer;
    const std::byte* data;
    std::size_t bytes;
  };

  std::shared_ptr<NcclHandle> handle_;
  std::vector<Receive> receives_;
  std::vector<Send> sends_;
  QueueMark done_;
};

ncclUniqueId common_id(Backend& hosts) {
  ncclUniqueId id{};
  if (hosts.place().rank == 0) KRAIT_CHECK_NCCL(ncclGetUniqueId(&id));
  broadcast_bytes(hosts, std::as_writable_bytes(std::span(&id, 1)));
  return id;
}

}  // namespace

std::string nccl_device_name(int device) {
  std::array<char, 64> bus{};
  KRAIT_CHECK_CUDA(cudaDeviceGetPCIBusId(bus.data(), static_cast<int>(bus.size()), device));
  std::array<char, 128> host{};
  gethostname(host.data(), host.size() - 1);
  const char* const id = std::getenv("NCCL_HOSTID");
  return std::string(id == nullptr ? host.data() : id).substr(0, 128) + ' ' + bus.data();
}

NcclBackend::NcclBackend(Backend& hosts, int device) : device_(device) {
  if (hosts.place().size == 1) return;
  handle_ = std::make_shared<NcclHandle>(hosts.place(), common_id(hosts), device);
  Kokkos::push_finalize_hook([weak = std::weak_ptr(handle_)] {
    if (const auto handle = weak.lock()) handle->close();
  });
}

std::unique_ptr<QueuedMessages> NcclBackend::open() { return std::make_unique<NcclMessages>(handle_); }

std::shared_ptr<QueueBackend> NcclBackend::over(Backend& part) const {
  return std::make_shared<NcclBackend>(part, device_);
}

}  // namespace krait::impl
