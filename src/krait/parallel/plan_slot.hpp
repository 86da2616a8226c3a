// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include <krait/comm/place.hpp>
#include <krait/layout/sequence_layout.hpp>

namespace krait::impl {

/// Keeps the plan of the last layout, batch and rank count, so that a steady state builds nothing. The layout is held
/// too: the plan's tables are those that the layout shares with its other users.
template <class Plan>
class PlanSlot {
 public:
  [[nodiscard]] bool holds(const SequenceLayout& layout, std::int64_t batch) const {
    return plan_ && batch == batch_ && layout_->place().rank == layout.place().rank &&
           layout_->ranks() == layout.ranks() && *layout_ == layout;
  }

  void set(const SequenceLayout& layout, std::int64_t batch, std::unique_ptr<Plan> plan) {
    layout_ = layout;
    batch_ = batch;
    plan_ = std::move(plan);
  }

  [[nodiscard]] Plan& plan() const { return *plan_; }

 private:
  std::optional<SequenceLayout> layout_;
  std::int64_t batch_ = 0;
  std::unique_ptr<Plan> plan_;
};

}  // namespace krait::impl
