// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <support/callback_recorder.hpp>

#include <Kokkos_Core.hpp>
#include <mutex>

namespace krait::test {
namespace {

namespace tools = Kokkos::Tools::Experimental;

// Kokkos takes plain function pointers, so the record of the one active recorder is the file's.
struct Record {
  std::mutex mutex;
  std::vector<CallbackRecorder::Event> kernels;
  std::vector<CallbackRecorder::Event> fences;
  std::vector<std::string> regions;
  std::vector<std::string> allocations;
  std::vector<std::string> copies;
  tools::EventSet previous;
};

Record& record() {
  static Record instance;
  return instance;
}

void on_kernel(const char* label, std::uint32_t device, std::uint64_t* id) {
  const std::lock_guard lock(record().mutex);
  *id = 0;
  record().kernels.push_back({label, device});
}

void on_fence(const char* label, std::uint32_t device, std::uint64_t* id) {
  const std::lock_guard lock(record().mutex);
  *id = 0;
  // Kokkos fences before it calls a tool, so those are ours.
  if (std::string(label).find("Kokkos Profile Tool Fence") != std::string::npos) return;
  record().fences.push_back({label, device});
}

void on_region(const char* label) {
  const std::lock_guard lock(record().mutex);
  record().regions.emplace_back(label);
}

void on_allocation(Kokkos_Profiling_SpaceHandle, const char* label, const void*, std::uint64_t) {
  const std::lock_guard lock(record().mutex);
  record().allocations.emplace_back(label);
}

void on_copy(Kokkos_Profiling_SpaceHandle, const char* destination, const void*, Kokkos_Profiling_SpaceHandle,
             const char*, const void*, std::uint64_t) {
  const std::lock_guard lock(record().mutex);
  record().copies.emplace_back(destination);
}

}  // namespace

CallbackRecorder::CallbackRecorder() {
  Record& state = record();
  state.kernels.clear();
  state.fences.clear();
  state.regions.clear();
  state.allocations.clear();
  state.copies.clear();
  state.previous = tools::get_callbacks();
  tools::set_begin_parallel_for_callback(on_kernel);
  tools::set_begin_parallel_reduce_callback(on_kernel);
  tools::set_begin_parallel_scan_callback(on_kernel);
  tools::set_begin_fence_callback(on_fence);
  tools::set_push_region_callback(on_region);
  tools::set_allocate_data_callback(on_allocation);
  tools::set_begin_deep_copy_callback(on_copy);
}

CallbackRecorder::~CallbackRecorder() { tools::set_callbacks(record().previous); }

const std::vector<CallbackRecorder::Event>& CallbackRecorder::kernels() const { return record().kernels; }
const std::vector<CallbackRecorder::Event>& CallbackRecorder::fences() const { return record().fences; }
const std::vector<std::string>& CallbackRecorder::regions() const { return record().regions; }
const std::vector<std::string>& CallbackRecorder::allocations() const { return record().allocations; }
const std::vector<std::string>& CallbackRecorder::copies() const { return record().copies; }

std::vector<std::string> CallbackRecorder::foreign_labels() const {
  std::vector<std::string> foreign;
  const auto check = [&](const std::string& label) {
    if (label.rfind("krait::", 0) != 0) foreign.push_back(label);
  };
  for (const Event& kernel : record().kernels) check(kernel.label);
  for (const std::string& region : record().regions) check(region);
  for (const std::string& allocation : record().allocations) check(allocation);
  return foreign;
}

}  // namespace krait::test
