// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/comm/queue_mark.hpp>

#include <Kokkos_Core.hpp>

#ifdef KOKKOS_ENABLE_CUDA
#include <krait/comm/cuda_check.hpp>
#endif

namespace krait::impl {

#ifdef KOKKOS_ENABLE_CUDA

namespace {

cudaEvent_t as_event(const std::shared_ptr<void>& event) { return static_cast<cudaEvent_t>(event.get()); }
cudaStream_t as_stream(void* queue) { return static_cast<cudaStream_t>(queue); }

}  // namespace

void QueueMark::record(void* queue) {
  if (!event_) {
    cudaEvent_t event = nullptr;
    KRAIT_CHECK_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    // CUDA keeps a destroyed event for those that wait for it.
    event_ = std::shared_ptr<void>(event, [](void* old) { cudaEventDestroy(static_cast<cudaEvent_t>(old)); });
  }
  KRAIT_CHECK_CUDA(cudaEventRecord(as_event(event_), as_stream(queue)));
}

void QueueMark::precede(void* queue) const {
  if (event_) KRAIT_CHECK_CUDA(cudaStreamWaitEvent(as_stream(queue), as_event(event_), 0));
}

bool QueueMark::reached() const {
  if (!event_) return true;
  const cudaError_t code = cudaEventQuery(as_event(event_));
  if (code == cudaErrorNotReady) {
    static_cast<void>(cudaGetLastError());  // else whoever asks next takes it for an error
    return false;
  }
  KRAIT_CHECK_CUDA(code);
  return true;
}

#else

void QueueMark::record(void* /*queue*/) {}
void QueueMark::precede(void* /*queue*/) const {}
bool QueueMark::reached() const { return true; }

#endif

}  // namespace krait::impl
