// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/layout/head_partition.hpp>

#include <cstddef>
#include <utility>
#include <vector>

#include <krait/core/error.hpp>

namespace krait {

namespace {

/// Of block k of each rank; of none if there are not so many.
Section heads_section(const HeadPartition& heads, const char* name, std::int64_t unit_width, std::int64_t k = 0,
                      std::int64_t blocks = 1) {
  Section section{name, heads.shape().heads, unit_width, {}};
  for (int r = 0; r < heads.ranks(); ++r)
    section.of_rank.push_back(k < blocks ? heads.block(r, k, blocks) : UnitRange());
  return section;
}

Section groups_section(const HeadPartition& heads, const char* name, bool with_any = true) {
  Section section{name, heads.shape().groups, heads.shape().d_state, {}};
  for (int r = 0; r < heads.ranks(); ++r)
    section.of_rank.push_back({heads.groups_begin(r), with_any ? heads.groups(r) : 0});
  return section;
}

}  // namespace

HeadPartition::HeadPartition(const Place& place, const HeadShape& shape, Divisibility divisibility)
    : place_(place), shape_(shape), divisibility_(divisibility) {
  constexpr const char* function = "krait::HeadPartition";
  KRAIT_REQUIRE(ConfigError, place.size >= 1 && place.rank >= 0 && place.rank < place.size, function, ": rank ",
                place.rank, " of ", place.size, " ranks does not exist");
  KRAIT_REQUIRE(ConfigError, shape.heads >= 1 && shape.head_dim >= 1 && shape.groups >= 1 && shape.d_state >= 1,
                function, ": heads, head_dim, groups and d_state must be positive, got ", shape.heads, ", ",
                shape.head_dim, ", ", shape.groups, ", ", shape.d_state);
  KRAIT_REQUIRE(ConfigError, shape.heads % shape.groups == 0, function, ": ", shape.heads, " heads do not divide by ",
                shape.groups, " groups");
  if (divisibility == Divisibility::uneven) return;
  constexpr const char* way_out = "; Divisibility::uneven accepts this";
  KRAIT_REQUIRE(ConfigError, shape.heads % place.size == 0, function, ": ", shape.heads, " heads do not divide by ",
                place.size, " ranks", way_out);
  KRAIT_REQUIRE(ConfigError, shape.groups < place.size || shape.groups % place.size == 0, function, ": ", shape.groups,
                " groups do not divide by ", place.size, " ranks", way_out);
  KRAIT_REQUIRE(ConfigError, shape.groups >= place.size || place.size % shape.groups == 0, function, ": ", place.size,
                " ranks do not divide by ", shape.groups, " groups", way_out);
}

std::int64_t HeadPartition::groups_end(int rank) const {
  return heads(rank) == 0 ? groups_begin(rank) : (heads_end(rank) - 1) / heads_per_group() + 1;
}

std::int64_t HeadPartition::group_repeat_count(std::int64_t group) const {
  std::int64_t count = 0;
  for (int r = 0; r < ranks(); ++r) count += groups_begin(r) <= group && group < groups_end(r) ? 1 : 0;
  return count;
}

SectionTable HeadPartition::projection_sections(bool with_z) const {
  std::vector<Section> sections = projection_block(0, 1).sections();
  if (with_z) sections.insert(sections.begin(), heads_section(*this, "z", shape_.head_dim));
  return SectionTable(std::move(sections));
}

SectionTable HeadPartition::conv_sections() const {
  std::vector<Section> sections{heads_section(*this, "x", shape_.head_dim), groups_section(*this, "B"),
                                groups_section(*this, "C")};
  return SectionTable(std::move(sections));
}

SectionTable HeadPartition::inner_sections() const { return inner_block(0, 1); }

UnitRange HeadPartition::block(int rank, std::int64_t k, std::int64_t blocks) const {
  const auto begin = [&](std::int64_t share) { return share * shape_.heads / (blocks * place_.size); };
  const std::int64_t share = blocks * rank + k;
  return {begin(share), begin(share + 1) - begin(share)};
}

SectionTable HeadPartition::projection_block(std::int64_t k, std::int64_t blocks) const {
  std::vector<Section> sections{heads_section(*this, "x", shape_.head_dim, k, blocks),
                                groups_section(*this, "B", k == 0), groups_section(*this, "C", k == 0),
                                heads_section(*this, "dt", 1, k, blocks)};
  return SectionTable(std::move(sections));
}

SectionTable HeadPartition::inner_block(std::int64_t k, std::int64_t blocks) const {
  std::vector<Section> sections{heads_section(*this, "y", shape_.head_dim, k, blocks)};
  return SectionTable(std::move(sections));
}

SectionTable HeadPartition::gradient_part(std::int64_t k, std::int64_t blocks) const {
  const bool with_groups = k + 1 == backward_parts(blocks);
  std::vector<Section> sections{heads_section(*this, "x", shape_.head_dim, k, blocks),
                                groups_section(*this, "B", with_groups), groups_section(*this, "C", with_groups),
                                heads_section(*this, "dt", 1, k, blocks)};
  return SectionTable(std::move(sections));
}

SectionTable HeadPartition::backward_part(std::int64_t k, std::int64_t blocks) const {
  std::vector<Section> sections = gradient_part(k, blocks).sections();
  sections.push_back(heads_section(*this, "dy", shape_.head_dim, k, blocks));
  return SectionTable(std::move(sections));
}

}  // namespace krait
