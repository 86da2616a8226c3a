// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/layout/sequence_layout.hpp>

#include <algorithm>
#include <numeric>
#include <sstream>
#include <utility>

#include <krait/core/error.hpp>
#include <krait/layout/boundaries.hpp>

namespace krait {

namespace {

using Kind = SequenceLayout::Kind;

const char* name_of(Kind kind) {
  switch (kind) {
    case Kind::contiguous:
      return "contiguous";
    case Kind::zigzag:
      return "zigzag";
    case Kind::zigzag_docs:
      return "zigzag_docs";
    default:
      return "explicit_tokens";
  }
}

const char* name_of(Policy policy) {
  switch (policy) {
    case Policy::even:
      return "even";
    case Policy::exact:
      return "exact";
    default:
      return "tail_pad";
  }
}

/// First token of chunk j of n, when the first chunks get the tokens that are left over.
std::int64_t chunk_begin(std::int64_t length, std::int64_t n, std::int64_t j) {
  return j * (length / n) + std::min(j, length % n);
}

std::vector<std::int64_t> inverse_of(const std::vector<std::int64_t>& permutation) {
  std::vector<std::int64_t> inverse(permutation.size());
  for (std::size_t i = 0; i < permutation.size(); ++i) {
    inverse[static_cast<std::size_t>(permutation[i])] = static_cast<std::int64_t>(i);
  }
  return inverse;
}

}  // namespace

struct SequenceLayout::Data {
  Kind kind = Kind::contiguous;
  Policy policy = Policy::even;
  int ranks = 1;
  std::int64_t real_length = 0;
  std::vector<Slot> slots;
  /// For every slot the tokens of earlier slots that are not padding.
  std::vector<std::int64_t> slot_sources;
  /// Rank-major, with the rank of each. Those of rank r are [first[r], first[r + 1]).
  std::vector<Stretch> stretches;
  std::vector<int> owners;
  std::vector<std::size_t> first{0};
  /// First place of every rank, and the length at the end.
  std::vector<std::int64_t> base{0};
  /// Numbers of the stretches, sorted by token.
  std::vector<std::size_t> by_token;
  bool identity = true;
  mutable impl::PerSpace forward;
  mutable impl::PerSpace inverse;

  Data(const std::string& function, Kind kind_, Policy policy_, const Place& place)
      : kind(kind_), policy(policy_), ranks(place.size) {
    KRAIT_REQUIRE(ConfigError, place.size >= 1 && place.rank >= 0 && place.rank < place.size, function, ": rank ",
                  place.rank, " of ", place.size, " ranks does not exist");
  }

  [[nodiscard]] std::int64_t length() const { return base.back(); }
  [[nodiscard]] std::int64_t chunks() const { return kind == Kind::contiguous ? ranks : 2 * std::int64_t{ranks}; }

  void add_slot(const std::string& function, std::int64_t real) {
    KRAIT_REQUIRE(LayoutError, policy != Policy::exact || real % chunks() == 0, function, ": ",
                  kind == Kind::zigzag_docs ? "document " + std::to_string(slots.size()) : "the sequence", " has ",
                  real, " tokens; policy exact wants a multiple of ", chunks(), " on ", ranks, " ranks");
    const std::int64_t padded = policy == Policy::tail_pad ? (real + chunks() - 1) / chunks() * chunks() : real;
    const std::int64_t begin = slots.empty() ? 0 : slots.back().end;
    slot_sources.push_back(real_length);
    slots.push_back({begin, begin + padded, real});
    real_length += real;
  }

  /// Calls visit(token, count) for the chunks that a rank holds of a slot.
  template <class Visit>
  void visit_chunks(const Slot& slot, int rank, Visit&& visit) const {
    const auto chunk = [&](std::int64_t j) {
      const std::int64_t begin = chunk_begin(slot.end - slot.begin, chunks(), j);
      visit(slot.begin + begin, chunk_begin(slot.end - slot.begin, chunks(), j + 1) - begin);
    };
    chunk(rank);
    if (kind != Kind::contiguous) chunk(chunks() - 1 - rank);
  }

  /// Adds consecutive tokens to the rank that is being built.
  void add_tokens(std::int64_t token, std::int64_t count) {
    if (count == 0) return;
    const bool fresh = stretches.size() == first.back();
    if (!fresh && stretches.back().token + stretches.back().count == token) {
      stretches.back().count += count;
      return;
    }
    stretches.push_back({token, fresh ? 0 : stretches.back().local + stretches.back().count, count});
    owners.push_back(static_cast<int>(first.size()) - 1);
  }

  void end_rank() {
    const bool empty = stretches.size() == first.back();
    base.push_back(base.back() + (empty ? 0 : stretches.back().local + stretches.back().count));
    first.push_back(stretches.size());
  }

  void finish() {
    by_token.resize(stretches.size());
    std::iota(by_token.begin(), by_token.end(), std::size_t{0});
    std::sort(by_token.begin(), by_token.end(),
              [this](std::size_t a, std::size_t b) { return stretches[a].token < stretches[b].token; });
    identity = std::is_sorted(by_token.begin(), by_token.end());
  }

  /// Hands the slots out to the ranks.
  void cut_slots() {
    for (int r = 0; r < ranks; ++r) {
      for (const Slot& slot : slots) {
        visit_chunks(slot, r, [this](std::int64_t token, std::int64_t count) { add_tokens(token, count); });
      }
      end_rank();
    }
    finish();
  }

  [[nodiscard]] std::size_t stretch_of(std::int64_t t) const {
    KRAIT_REQUIRE(LayoutError, t >= 0 && t < length(), "krait::SequenceLayout: token ", t, " does not lie in [0, ",
                  length(), ")");
    const auto after = std::upper_bound(by_token.begin(), by_token.end(), t, [this](std::int64_t token, std::size_t s) {
      return token < stretches[s].token;
    });
    return *(after - 1);
  }

  void require_rank(int rank) const {
    KRAIT_REQUIRE(LayoutError, rank >= 0 && rank < ranks, "krait::SequenceLayout: rank ", rank, " of ", ranks,
                  " ranks does not exist");
  }

  /// Calls visit(token, place, count) for every stretch.
  template <class Visit>
  void visit_places(Visit&& visit) const {
    for (std::size_t s = 0; s < stretches.size(); ++s) {
      visit(stretches[s].token, base[static_cast<std::size_t>(owners[s])] + stretches[s].local, stretches[s].count);
    }
  }
};

SequenceLayout SequenceLayout::contiguous(const Place& place, std::int64_t length, Policy policy) {
  return cut_row("krait::SequenceLayout::contiguous", Kind::contiguous, place, length, policy);
}

SequenceLayout SequenceLayout::zigzag(const Place& place, std::int64_t length, Policy policy) {
  return cut_row("krait::SequenceLayout::zigzag", Kind::zigzag, place, length, policy);
}

SequenceLayout SequenceLayout::cut_row(const std::string& function, Kind kind, const Place& place, std::int64_t length,
                                       Policy policy) {
  auto data = std::make_shared<Data>(function, kind, policy, place);
  KRAIT_REQUIRE(LayoutError, length >= 0, function, ": length is ", length, ", expected 0 or more");
  data->add_slot(function, length);
  data->cut_slots();
  return {place.rank, std::move(data)};
}

SequenceLayout SequenceLayout::zigzag_docs(const Place& place, const std::vector<std::int64_t>& cu_seqlens,
                                           Policy policy) {
  const std::string function = "krait::SequenceLayout::zigzag_docs";
  auto data = std::make_shared<Data>(function, Kind::zigzag_docs, policy, place);
  impl::require_boundaries(function, cu_seqlens);
  for (std::size_t d = 1; d < cu_seqlens.size(); ++d) data->add_slot(function, cu_seqlens[d] - cu_seqlens[d - 1]);
  data->cut_slots();
  return {place.rank, std::move(data)};
}

SequenceLayout SequenceLayout::explicit_tokens(const Place& place,
                                               const std::vector<std::vector<std::int64_t>>& tokens) {
  const std::string function = "krait::SequenceLayout::explicit_tokens";
  auto data = std::make_shared<Data>(function, Kind::explicit_tokens, Policy::even, place);
  KRAIT_REQUIRE(LayoutError, static_cast<int>(tokens.size()) == place.size, function, ": ", tokens.size(),
                " lists of tokens for ", place.size, " ranks");
  std::int64_t length = 0;
  for (const auto& list : tokens) length += static_cast<std::int64_t>(list.size());
  std::vector<bool> seen(static_cast<std::size_t>(length), false);
  for (std::size_t r = 0; r < tokens.size(); ++r) {
    for (const std::int64_t t : tokens[r]) {
      KRAIT_REQUIRE(LayoutError, t >= 0 && t < length, function, ": rank ", r, " holds token ", t,
                    ", but the lists have ", length, " tokens together");
      KRAIT_REQUIRE(LayoutError, !seen[static_cast<std::size_t>(t)], function, ": token ", t,
                    " is held twice, the second time by rank ", r);
      seen[static_cast<std::size_t>(t)] = true;
      data->add_tokens(t, 1);
    }
    data->end_rank();
  }
  data->slots.push_back({0, length, length});
  data->slot_sources.push_back(0);
  data->real_length = length;
  data->finish();
  return {place.rank, std::move(data)};
}

int SequenceLayout::ranks() const { return data_->ranks; }
SequenceLayout::Kind SequenceLayout::kind() const { return data_->kind; }
std::int64_t SequenceLayout::length() const { return data_->length(); }
std::int64_t SequenceLayout::real_length() const { return data_->real_length; }
bool SequenceLayout::is_identity() const { return data_->identity; }
const std::vector<Slot>& SequenceLayout::slots() const { return data_->slots; }
impl::PerSpace& SequenceLayout::forward_maps() const { return data_->forward; }
impl::PerSpace& SequenceLayout::inverse_maps() const { return data_->inverse; }
std::size_t SequenceLayout::map_builds() const { return data_->forward.builds() + data_->inverse.builds(); }

std::string SequenceLayout::description() const {
  std::ostringstream text;
  text << name_of(kind());
  if (kind() != Kind::explicit_tokens) text << '(' << name_of(data_->policy) << ')';
  text << " layout of " << length() << " tokens for rank " << rank_ << " of " << ranks();
  return text.str();
}

std::int64_t SequenceLayout::base(int rank) const {
  data_->require_rank(rank);
  return data_->base[static_cast<std::size_t>(rank)];
}

std::int64_t SequenceLayout::local_length(int rank) const {
  return data_->base[static_cast<std::size_t>(rank) + 1] - base(rank);
}

std::int64_t SequenceLayout::global_of_local(int rank, std::int64_t i) const {
  KRAIT_REQUIRE(LayoutError, i >= 0 && i < local_length(rank), "krait::SequenceLayout::global_of_local: position ", i,
                " on rank ", rank, ", which holds ", local_length(rank), " tokens");
  const auto begin =
      data_->stretches.begin() + static_cast<std::ptrdiff_t>(data_->first[static_cast<std::size_t>(rank)]);
  const auto end =
      data_->stretches.begin() + static_cast<std::ptrdiff_t>(data_->first[static_cast<std::size_t>(rank) + 1]);
  const auto after =
      std::upper_bound(begin, end, i, [](std::int64_t local, const Stretch& s) { return local < s.local; });
  const Stretch& stretch = *(after - 1);
  return stretch.token + (i - stretch.local);
}

int SequenceLayout::owner(std::int64_t t) const { return data_->owners[data_->stretch_of(t)]; }

std::int64_t SequenceLayout::local_of_global(std::int64_t t) const {
  const Stretch& stretch = data_->stretches[data_->stretch_of(t)];
  return stretch.local + (t - stretch.token);
}

std::int64_t SequenceLayout::place_of_global(std::int64_t t) const { return base(owner(t)) + local_of_global(t); }

std::vector<Stretch> SequenceLayout::stretches(int rank) const {
  data_->require_rank(rank);
  const auto r = static_cast<std::size_t>(rank);
  return {data_->stretches.begin() + static_cast<std::ptrdiff_t>(data_->first[r]),
          data_->stretches.begin() + static_cast<std::ptrdiff_t>(data_->first[r + 1])};
}

std::vector<std::int64_t> SequenceLayout::padded_boundaries() const {
  std::vector<std::int64_t> result{0};
  for (const Slot& slot : slots()) result.push_back(slot.end);
  return result;
}

std::vector<std::int64_t> SequenceLayout::real_lengths() const {
  std::vector<std::int64_t> result;
  for (const Slot& slot : slots()) result.push_back(slot.real);
  return result;
}

std::int64_t SequenceLayout::source_token(std::int64_t t) const {
  KRAIT_REQUIRE(LayoutError, t >= 0 && t < length(), "krait::SequenceLayout::source_token: token ", t,
                " does not lie in [0, ", length(), ")");
  const auto slot = std::upper_bound(slots().begin(), slots().end(), t,
                                     [](std::int64_t token, const Slot& s) { return token < s.end; });
  const std::int64_t offset = t - slot->begin;
  return offset < slot->real ? data_->slot_sources[static_cast<std::size_t>(slot - slots().begin())] + offset : -1;
}

std::vector<std::int64_t> SequenceLayout::index() const {
  std::vector<std::int64_t> result(static_cast<std::size_t>(length()));
  data_->visit_places([&](std::int64_t token, std::int64_t place, std::int64_t count) {
    std::iota(result.begin() + token, result.begin() + token + count, place);
  });
  return result;
}

std::vector<std::int64_t> SequenceLayout::inverse_index() const {
  std::vector<std::int64_t> result(static_cast<std::size_t>(length()));
  data_->visit_places([&](std::int64_t token, std::int64_t place, std::int64_t count) {
    std::iota(result.begin() + place, result.begin() + place + count, token);
  });
  return result;
}

std::vector<std::int64_t> SequenceLayout::redo_order() const {
  KRAIT_REQUIRE(LayoutError, kind() != Kind::explicit_tokens,
                "krait::SequenceLayout: an explicit layout is not made of chunks, so it has no order of chunks");
  std::vector<std::int64_t> result;
  for (int r = 0; r < ranks(); ++r) {
    result.push_back(r);
    if (kind() != Kind::contiguous) result.push_back(data_->chunks() - 1 - r);
  }
  return result;
}

std::vector<std::int64_t> SequenceLayout::undo_order() const { return inverse_of(redo_order()); }

std::vector<std::int64_t> SequenceLayout::deinterleave_index() const {
  std::vector<std::int64_t> result(static_cast<std::size_t>(length()));
  if (kind() != Kind::zigzag_docs) {  // one document: rank-major is document-major
    std::iota(result.begin(), result.end(), std::int64_t{0});
    return result;
  }
  std::vector<std::int64_t> next(data_->base.begin(), data_->base.end() - 1);
  auto out = result.begin();
  for (const Slot& slot : slots()) {
    for (int r = 0; r < ranks(); ++r) {
      std::int64_t& place = next[static_cast<std::size_t>(r)];
      data_->visit_chunks(slot, r, [&](std::int64_t /*token*/, std::int64_t count) {
        std::iota(out, out + count, place);
        out += count;
        place += count;
      });
    }
  }
  return result;
}

std::vector<std::int64_t> SequenceLayout::reinterleave_index() const { return inverse_of(deinterleave_index()); }

bool SequenceLayout::matches(const Place& place, std::int64_t tokens) const {
  return place.rank == rank_ && place.size == ranks() && tokens == length();
}

void SequenceLayout::require_match(const std::string& function, const Place& place) const {
  KRAIT_REQUIRE(LayoutError, place.rank == rank_ && place.size == ranks(), function, ": the ", description(),
                " is used on rank ", place.rank, " of ", place.size);
}

void SequenceLayout::require_match(const std::string& function, const Place& place, std::int64_t tokens) const {
  require_match(function, place);
  KRAIT_REQUIRE(LayoutError, tokens == length(), function, ": the ", description(), " is used for ", tokens, " tokens");
}

bool operator==(const SequenceLayout& a, const SequenceLayout& b) {
  if (a.rank_ != b.rank_) return false;
  return a.data_ == b.data_ || (a.data_->base == b.data_->base && a.data_->stretches == b.data_->stretches);
}

}  // namespace krait
