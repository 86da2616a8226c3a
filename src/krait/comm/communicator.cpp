// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/comm/communicator.hpp>

#include <utility>

#include <krait/comm/exchange.hpp>
#include <krait/comm/family.hpp>
#include <krait/comm/launch.hpp>
#include <krait/comm/self/self_backend.hpp>
#include <krait/core/error.hpp>
#ifdef KRAIT_ENABLE_MPI
#include <krait/comm/mpi/world.hpp>
#endif

namespace krait {

namespace impl {

bool Progress::others_need_care(const RequestState* own) const {
  for (const RequestState* request : requests_) {
    if (request != own && !request->finished()) return true;
  }
  return false;
}

void Progress::advance_all() {
  for (RequestState* request : requests_) request->advance();
}

}  // namespace impl

Communicator::Communicator(std::shared_ptr<impl::Backend> backend) : state_(std::make_shared<impl::CommState>()) {
  state_->place = backend->place();
  state_->backend = std::move(backend);
}

Communicator Communicator::self() { return Communicator(std::make_shared<impl::SelfBackend>()); }

Communicator Communicator::world_of([[maybe_unused]] int cuda_device) {
#ifdef KRAIT_ENABLE_MPI
  if (auto backend = impl::mpi_world()) {
    Communicator world(std::move(backend));
    world.state_->queue = impl::make_queue_backend(*world.state_->backend, cuda_device);
    return world;
  }
#endif
  return self();
}

Place Communicator::place() const { return state_->place; }

Communicator Communicator::split(int color, int key) const {
  KRAIT_REQUIRE(ConfigError, color >= 0, "krait::Communicator::split: color is ", color, ", expected 0 or more");
  impl::throw_lost_failure(*state_);
  Communicator part(state_->backend->split(color, key));
  if (state_->queue) part.state_->queue = state_->queue->over(*part.state_->backend);
  part.state_->limits = state_->limits;
  part.state_->force_host_buffer = state_->force_host_buffer;
  part.state_->gpu_aware_mpi = state_->gpu_aware_mpi;
  part.state_->progress = state_->progress;
  return part;
}

bool Communicator::force_host_buffer() const { return state_->force_host_buffer; }
void Communicator::force_host_buffer(bool force) { state_->force_host_buffer = force; }

bool Communicator::gpu_aware_mpi() const { return state_->gpu_aware_mpi; }
void Communicator::gpu_aware_mpi(bool aware) { state_->gpu_aware_mpi = aware; }

const char* Communicator::backend() const { return state_->queue ? state_->queue->name() : state_->backend->name(); }

CommCounters Communicator::counters() const { return state_->counters; }
void Communicator::reset_counters() { state_->counters = CommCounters(); }

void Communicator::barrier() const {
  const impl::CommRegion region(*state_, CommOperation::barrier, impl::Reach::host);
  impl::begin(*state_, CommOperation::barrier);
  const auto messages = state_->backend->barrier();
  const impl::WaitTimer timer(*state_, CommOperation::barrier);
  state_->progress->run(nullptr, [&] { return messages->test(); }, [&] { messages->wait(); });
}

}  // namespace krait
