// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Data whose every bit tells where it comes from, and Views made of it.

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <cstring>
#include <krait/core/random.hpp>
#include <string>
#include <vector>

namespace krait::test {

using Exec = Kokkos::DefaultExecutionSpace;

template <class T>
using Buffer = Kokkos::View<T*, Exec::memory_space>;

template <class T>
Buffer<T> upload(const std::vector<T>& host) {
  Buffer<T> view(Kokkos::view_alloc(Kokkos::WithoutInitializing, "krait::test::buffer"), host.size());
  Kokkos::deep_copy(view, Kokkos::View<const T*, Kokkos::HostSpace>(host.data(), host.size()));
  return view;
}

template <class T>
Buffer<T> room(std::int64_t count) {
  return Buffer<T>("krait::test::room", static_cast<std::size_t>(count));
}

template <class View>
auto download(const View& view) {
  std::vector<typename View::non_const_value_type> host(view.extent(0));
  Kokkos::deep_copy(Kokkos::View<typename View::non_const_value_type*, Kokkos::HostSpace>(host.data(), host.size()),
                    view);
  return host;
}

/// Elements first ... first + count - 1 of what rank `from` has for rank `to`: random bits, NaNs among them.
template <class T>
std::vector<T> pattern(int from, int to, std::int64_t count, std::int64_t first = 0) {
  std::vector<T> values(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    const auto stream = static_cast<std::uint64_t>(from * 1000 + to);
    const std::uint64_t bits = mix64(mix64(stream) ^ static_cast<std::uint64_t>(first + i));
    std::memcpy(static_cast<void*>(&values[static_cast<std::size_t>(i)]), &bits, sizeof(T));
  }
  return values;
}

template <class T>
void append(std::vector<T>& list, const std::vector<T>& more) {
  list.insert(list.end(), more.begin(), more.end());
}

/// Equal bit for bit.
template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

}  // namespace krait::test
