// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/comm/bootstrap.hpp>

#include <algorithm>
#include <cstdint>

#include <krait/core/error.hpp>

namespace krait::impl {
namespace {

constexpr int tag = 0;
constexpr std::int64_t no_limit = std::int64_t{1} << 30;
constexpr std::size_t text_length = 256;

std::int64_t size_of(std::span<const std::byte> bytes) { return static_cast<std::int64_t>(bytes.size()); }

}  // namespace

void broadcast_bytes(Backend& ranks, std::span<std::byte> bytes) {
  const Place place = ranks.place();
  const auto messages = ranks.open(tag, no_limit);
  if (place.rank != 0) messages->receive(0, bytes.data(), size_of(bytes));
  for (int peer = 1; place.rank == 0 && peer < place.size; ++peer) messages->send(peer, bytes.data(), size_of(bytes));
  messages->wait();
}

std::vector<std::string> gather_texts(Backend& ranks, const std::string& text) {
  KRAIT_REQUIRE(ConfigError, text.size() < text_length, "krait::comm: the text of a rank has ", text.size(),
                " characters, expected fewer than ", text_length);
  const Place place = ranks.place();
  std::string all(static_cast<std::size_t>(place.size) * text_length, '\0');
  const auto slot = [&](int rank) {
    return std::as_writable_bytes(std::span(all)).subspan(static_cast<std::size_t>(rank) * text_length, text_length);
  };
  std::ranges::copy(std::as_bytes(std::span(text)), slot(place.rank).begin());
  const auto messages = ranks.open(tag, no_limit);
  for (int peer = 0; peer < place.size; ++peer) {
    if (peer != place.rank) messages->receive(peer, slot(peer).data(), size_of(slot(peer)));
  }
  for (int peer = 0; peer < place.size; ++peer) {
    if (peer != place.rank) messages->send(peer, slot(place.rank).data(), size_of(slot(place.rank)));
  }
  messages->wait();
  std::vector<std::string> texts;
  for (int rank = 0; rank < place.size; ++rank) {
    texts.emplace_back(all.c_str() + static_cast<std::size_t>(rank) * text_length);
  }
  return texts;
}

}  // namespace krait::impl
