// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/tile/host/past_cache.hpp>

// clang-format off
#include <krait/tile/host/targets.hpp>
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE <krait/tile/host/past_cache.cpp>
#include <hwy/foreach_target.h>
#include <hwy/cache_control.h>
#include <hwy/highway.h>
// clang-format on

#include <algorithm>
#include <cstdint>
#include <cstring>

HWY_BEFORE_NAMESPACE();
namespace krait::tile::host::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

void copy_past_cache_here(const std::uint8_t* from, std::uint8_t* to, std::size_t bytes) {
  const hn::ScalableTag<std::uint8_t> d;
  const std::size_t width = hn::Lanes(d);
  const std::size_t line = std::max<std::size_t>(width, 64);
  const std::size_t behind = reinterpret_cast<std::uintptr_t>(to) % line;
  std::size_t i = behind == 0 ? 0 : std::min(bytes, line - behind);
  std::memcpy(to, from, i);
  for (; i + 4 * width <= bytes; i += 4 * width) {
    const auto first = hn::LoadU(d, from + i);
    const auto second = hn::LoadU(d, from + i + width);
    const auto third = hn::LoadU(d, from + i + 2 * width);
    const auto fourth = hn::LoadU(d, from + i + 3 * width);
    hn::Stream(first, d, to + i);
    hn::Stream(second, d, to + i + width);
    hn::Stream(third, d, to + i + 2 * width);
    hn::Stream(fourth, d, to + i + 3 * width);
  }
  for (; i + width <= bytes; i += width) hn::Stream(hn::LoadU(d, from + i), d, to + i);
  std::memcpy(to + i, from + i, bytes - i);
}

}  // namespace krait::tile::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace krait::tile::host {

HWY_EXPORT(copy_past_cache_here);

void copy_past_cache(const void* from, void* to, std::size_t bytes) {
  HWY_DYNAMIC_DISPATCH(copy_past_cache_here)
  (static_cast<const std::uint8_t*>(from), static_cast<std::uint8_t*>(to), bytes);
}

void finish_past_cache() { hwy::FlushStream(); }

}  // namespace krait::tile::host
#endif
