// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/core/config.hpp>
#include <numeric>
#include <support/ranks.hpp>

#ifdef KRAIT_ENABLE_MPI
#include <krait/comm/mpi/check.hpp>
#endif

namespace krait::test {

#ifdef KRAIT_ENABLE_MPI

namespace {

/// Made at the first use, which all ranks make together, and left to MPI_Finalize.
MPI_Comm test_comm() {
  static const MPI_Comm comm = [] {
    MPI_Comm copy = MPI_COMM_NULL;
    KRAIT_CHECK_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &copy));
    return copy;
  }();
  return comm;
}

}  // namespace

Place world_place() {
  Place place;
  KRAIT_CHECK_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &place.rank));
  KRAIT_CHECK_MPI(MPI_Comm_size(MPI_COMM_WORLD, &place.size));
  return place;
}

std::vector<std::string> gather_on_root(const std::string& text) {
  const Place place = world_place();
  const bool root = place.rank == 0;
  const auto ranks = static_cast<std::size_t>(root ? place.size : 0);
  const int length = static_cast<int>(text.size());
  std::vector<int> lengths(ranks);
  KRAIT_CHECK_MPI(MPI_Gather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, 0, test_comm()));
  std::vector<int> offsets(ranks);
  std::exclusive_scan(lengths.begin(), lengths.end(), offsets.begin(), 0);
  std::string joined(root ? static_cast<std::size_t>(offsets.back() + lengths.back()) : 0, ' ');
  KRAIT_CHECK_MPI(MPI_Gatherv(text.data(), length, MPI_CHAR, joined.data(), lengths.data(), offsets.data(), MPI_CHAR, 0,
                              test_comm()));
  std::vector<std::string> texts(ranks);
  for (std::size_t r = 0; r < ranks; ++r) {
    texts[r] = joined.substr(static_cast<std::size_t>(offsets[r]), static_cast<std::size_t>(lengths[r]));
  }
  return texts;
}

int largest_of_ranks(int value) {
  int largest = value;
  KRAIT_CHECK_MPI(MPI_Allreduce(&value, &largest, 1, MPI_INT, MPI_MAX, test_comm()));
  return largest;
}

int from_root(int value) {
  KRAIT_CHECK_MPI(MPI_Bcast(&value, 1, MPI_INT, 0, test_comm()));
  return value;
}

#else

Place world_place() { return {}; }
std::vector<std::string> gather_on_root(const std::string& text) { return {text}; }
int largest_of_ranks(int value) { return value; }
int from_root(int value) { return value; }

#endif

bool on_all_ranks(bool condition) { return largest_of_ranks(condition ? 0 : 1) == 0; }

}  // namespace krait::test
