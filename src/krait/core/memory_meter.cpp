// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/core/memory_meter.hpp>

#include <Kokkos_Core.hpp>
#include <algorithm>
#include <mutex>
#include <unordered_map>

#include <krait/core/error.hpp>

namespace krait {
namespace {

namespace tools = Kokkos::Tools::Experimental;

// Kokkos takes plain function pointers, so the state of the one active meter is the file's.
struct MeterState {
  std::mutex mutex;
  bool active = false;
  std::unordered_map<const void*, std::size_t> live;
  std::size_t bytes = 0;
  std::size_t peak = 0;
  std::size_t allocations = 0;
  tools::EventSet previous;
};

MeterState& meter() {
  static MeterState state;
  return state;
}

void on_allocate(Kokkos_Profiling_SpaceHandle space, const char* label, const void* address, std::uint64_t bytes) {
  MeterState& state = meter();
  {
    const std::lock_guard lock(state.mutex);
    state.live[address] = bytes;
    state.bytes += bytes;
    state.peak = std::max(state.peak, state.bytes);
    ++state.allocations;
  }
  if (state.previous.allocate_data != nullptr) state.previous.allocate_data(space, label, address, bytes);
}

void on_deallocate(Kokkos_Profiling_SpaceHandle space, const char* label, const void* address, std::uint64_t bytes) {
  MeterState& state = meter();
  {
    const std::lock_guard lock(state.mutex);
    const auto found = state.live.find(address);
    if (found != state.live.end()) {
      state.bytes -= found->second;
      state.live.erase(found);
    }
  }
  if (state.previous.deallocate_data != nullptr) state.previous.deallocate_data(space, label, address, bytes);
}

}  // namespace

MemoryMeter::MemoryMeter() {
  MeterState& state = meter();
  KRAIT_REQUIRE(Error, !state.active, "krait::MemoryMeter: another meter is active in this process");
  state.active = true;
  state.live.clear();
  state.bytes = state.peak = state.allocations = 0;
  state.previous = tools::get_callbacks();
  tools::set_allocate_data_callback(on_allocate);
  tools::set_deallocate_data_callback(on_deallocate);
}

MemoryMeter::~MemoryMeter() {
  MeterState& state = meter();
  tools::set_allocate_data_callback(state.previous.allocate_data);
  tools::set_deallocate_data_callback(state.previous.deallocate_data);
  state.active = false;
}

std::size_t MemoryMeter::live_bytes() const {
  const std::lock_guard lock(meter().mutex);
  return meter().bytes;
}

std::size_t MemoryMeter::peak_bytes() const {
  const std::lock_guard lock(meter().mutex);
  return meter().peak;
}

std::size_t MemoryMeter::allocations() const {
  const std::lock_guard lock(meter().mutex);
  return meter().allocations;
}

void MemoryMeter::reset_peak() {
  const std::lock_guard lock(meter().mutex);
  meter().peak = meter().bytes;
}

}  // namespace krait
