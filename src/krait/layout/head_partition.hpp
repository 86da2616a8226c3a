// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Who works on which head in the hidden-parallel strategy.

#include <cstdint>

#include <krait/comm/place.hpp>
#include <krait/layout/section_table.hpp>

namespace krait {

/// The heads of one layer: `heads` of width `head_dim`, in `groups` that share B and C of width `d_state`.
struct HeadShape {
  std::int64_t heads = 1;
  std::int64_t head_dim = 1;
  std::int64_t groups = 1;
  std::int64_t d_state = 1;

  friend bool operator==(const HeadShape&, const HeadShape&) = default;
};

/// What a number of ranks must do to the heads and groups.
enum class Divisibility {
  strict,  ///< heads divide by the ranks, and of groups and ranks one divides the other; upstream's rule
  uneven,  ///< anything goes: shares differ by at most one head, some ranks may have none
};

/// Heads [floor(rH/P), floor((r+1)H/P)) belong to rank r, with every group that they touch. Groups are shared by
/// consecutive ranks where there are fewer groups than ranks; then each of them reads the same B and C.
///
/// Widths and sections follow the channel order z | x | B | C | dt of the projection and x | B | C of the
/// convolution, globally and locally.
class HeadPartition {
 public:
  /// \throws ConfigError when an extent is not positive, heads do not divide by groups, or the ranks break the rule
  HeadPartition(const Place& place, const HeadShape& shape, Divisibility divisibility = Divisibility::strict);

  [[nodiscard]] const HeadShape& shape() const { return shape_; }
  [[nodiscard]] Place place() const { return place_; }
  [[nodiscard]] int rank() const { return place_.rank; }
  [[nodiscard]] int ranks() const { return place_.size; }
  [[nodiscard]] Divisibility divisibility() const { return divisibility_; }

  /// Heads [heads_begin(r), heads_end(r)) of rank r.
  [[nodiscard]] std::int64_t heads_begin(int rank) const { return rank * shape_.heads / place_.size; }
  [[nodiscard]] std::int64_t heads_end(int rank) const { return heads_begin(rank + 1); }
  [[nodiscard]] std::int64_t heads(int rank) const { return heads_end(rank) - heads_begin(rank); }
  [[nodiscard]] std::int64_t heads() const { return heads(place_.rank); }
  /// The groups these heads touch; none where there are no heads.
  [[nodiscard]] std::int64_t groups_begin(int rank) const { return heads_begin(rank) / heads_per_group(); }
  [[nodiscard]] std::int64_t groups_end(int rank) const;
  [[nodiscard]] std::int64_t groups(int rank) const { return groups_end(rank) - groups_begin(rank); }
  [[nodiscard]] std::int64_t groups() const { return groups(place_.rank); }
  /// How many ranks work on heads of one group. (Upstream: `group_repeat_count`.)
  [[nodiscard]] std::int64_t group_repeat_count(std::int64_t group) const;

  /// The scan of a rank's heads reads local group (h + first_head) / heads_per_group for local head h.
  [[nodiscard]] std::int64_t heads_per_group() const { return shape_.heads / shape_.groups; }
  [[nodiscard]] std::int64_t first_head(int rank) const {
    return heads_begin(rank) - groups_begin(rank) * heads_per_group();
  }
  [[nodiscard]] std::int64_t first_head() const { return first_head(place_.rank); }

  /// Widths of the whole layer.
  [[nodiscard]] std::int64_t d_inner() const { return shape_.heads * shape_.head_dim; }
  [[nodiscard]] std::int64_t group_width() const { return shape_.groups * shape_.d_state; }
  [[nodiscard]] std::int64_t conv_channels() const { return d_inner() + 2 * group_width(); }
  [[nodiscard]] std::int64_t projection_width(bool with_z) const {
    return (with_z ? 2 : 1) * d_inner() + 2 * group_width() + shape_.heads;
  }

  /// The same of a rank.
  [[nodiscard]] std::int64_t d_inner_local(int rank) const { return heads(rank) * shape_.head_dim; }
  [[nodiscard]] std::int64_t d_inner_local() const { return d_inner_local(place_.rank); }
  [[nodiscard]] std::int64_t group_width_local(int rank) const { return groups(rank) * shape_.d_state; }
  [[nodiscard]] std::int64_t group_width_local() const { return group_width_local(place_.rank); }
  [[nodiscard]] std::int64_t conv_channels_local(int rank) const {
    return d_inner_local(rank) + 2 * group_width_local(rank);
  }
  [[nodiscard]] std::int64_t conv_channels_local() const { return conv_channels_local(place_.rank); }
  [[nodiscard]] std::int64_t projection_width_local(int rank, bool with_z) const {
    return (with_z ? 2 : 1) * d_inner_local(rank) + 2 * group_width_local(rank) + heads(rank);
  }

  /// Sections of the projection row z | x | B | C | dt, without z for x | B | C | dt, numbered from x: z can stay where
  /// it is.
  [[nodiscard]] SectionTable projection_sections(bool with_z) const;
  /// Sections of the convolution's channels x | B | C: rows of its weight and bias.
  [[nodiscard]] SectionTable conv_sections() const;
  /// The one section of y: all heads.
  [[nodiscard]] SectionTable inner_sections() const;
  /// \name Parts of all shares, to be exchanged and worked on one after the other
  /// \{

  /// Block k of `blocks` of a rank's heads, by their numbers in the layer: the share that rank `blocks` r + k of
  /// `blocks` P ranks would have.
  [[nodiscard]] UnitRange block(int rank, std::int64_t k, std::int64_t blocks) const;
  /// Of x | B | C | dt what the ranks need for their blocks k: B and C of all their groups with the first, where the
  /// later ones find them. All blocks together are projection_sections(false).
  [[nodiscard]] SectionTable projection_block(std::int64_t k, std::int64_t blocks) const;
  /// Of y what their blocks k make.
  [[nodiscard]] SectionTable inner_block(std::int64_t k, std::int64_t blocks) const;
  /// Parts in which a backward exchanges `blocks` blocks: one for each, and if these are several, one of B and C.
  static std::int64_t backward_parts(std::int64_t blocks) { return blocks == 1 ? 1 : blocks + 1; }
  /// Of x | B | C | dt what part k has: x and dt of the ranks' blocks k, which has B and C of their groups, too, if it
  /// is the only one; else those are the last part, since their gradients are complete when all blocks are through.
  /// All parts together are projection_sections(false).
  [[nodiscard]] SectionTable gradient_part(std::int64_t k, std::int64_t blocks) const;
  /// The same with dy of the blocks behind it: what a backward that recomputes needs of a token.
  [[nodiscard]] SectionTable backward_part(std::int64_t k, std::int64_t blocks) const;
  /// \}

 private:
  Place place_;
  HeadShape shape_;
  Divisibility divisibility_;
};

}  // namespace krait
