// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

namespace krait {

namespace impl {

/// The device that a rank takes.
/// \param rank_in_node  its number among the ranks of its machine
/// \param devices       that this rank sees, at least 1
[[nodiscard]] constexpr int device_of_rank(int rank_in_node, int devices) { return rank_in_node % devices; }

}  // namespace impl

/// MPI (where enabled) and Kokkos for the length of main: opened in the right order, closed in the right order. What
/// the caller has initialised before is left as it is, and open at the end.
///
/// Where a node has several devices, rank i of the node takes device i modulo their number, unless Kokkos's own
/// arguments or variables choose one. The arguments of Kokkos and MPI are removed from argc and argv.
class Environment {
 public:
  /// \throws ConfigError without a device that a build for CUDA could compute on, before anything is opened
  Environment(int& argc, char**& argv);
  ~Environment();
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;
  Environment(Environment&&) = delete;
  Environment& operator=(Environment&&) = delete;

 private:
  bool closes_mpi_ = false;
  bool closes_kokkos_ = false;
};

}  // namespace krait
