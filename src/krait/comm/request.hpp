// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <memory>
#include <span>
#include <typeinfo>

#include <krait/core/kokkos_shims.hpp>

namespace krait {

namespace impl {
class RequestState;
struct Reader;
}  // namespace impl

/// A communication under way. It holds the Views it reads and writes, so dropping one's own copies is safe.
///
/// Blocking form: `all_to_all(exec, comm, send, recv).wait();`
///
/// What is received over NCCL is ordered on the device: wait_on() for a CUDA instance then never blocks the host, and
/// all stages of an operation of several (reductions, exchanges of states) are enqueued when it starts, the kernels
/// among them on its instance.
///
/// When one request is started or waited for, the others of its communicator advance too; requests may be waited for in
/// any order, also in another order on every rank.
class
#ifndef __CUDACC__  // which takes an assignment for a discarded result
    [[nodiscard]]
#endif
    Request {
 public:
  /// Nothing under way: wait() returns at once.
  Request() noexcept;
  explicit Request(std::unique_ptr<impl::RequestState> state) noexcept;
  Request(Request&& other) noexcept;
  Request& operator=(Request&& other) noexcept;
  /// Waits, and never throws: a failure is kept, and the communicator's next operation throws it. While an exception
  /// unwinds it waits only for some seconds; memory that is still in use then is never freed.
  ~Request();

  /// Waits until everything has arrived. Afterwards sent Views may be overwritten and received Views may be read by
  /// anybody: by any execution space and, where their memory allows, by the host. A second call does nothing.
  /// \throws CommError when a message failed
  void wait();

  /// As wait(), but the received Views are only promised to work enqueued on `exec` later on. If `exec` is the instance
  /// on which the operation was started and nothing was staged through host memory, there is no fence. A failure of
  /// NCCL that comes later than this call is thrown by the communicator's next operation.
  template <class Exec>
  void wait_on(const Exec& exec) {
    wait_for(typeid(Exec), &exec, impl::queue_of(exec));
  }

  /// True when finished; then as after wait(). Does not wait for other ranks.
  /// \throws CommError when a message failed
  [[nodiscard]] bool test();

 private:
  void wait_for(const std::type_info& space, const void* exec, void* queue);
  void end(const impl::Reader& reader);
  void finish() noexcept;

  std::unique_ptr<impl::RequestState> state_;
};

/// Waits for all of them. When several fail, the first failure is thrown after all have ended.
void wait_all(std::span<Request> requests);

}  // namespace krait
