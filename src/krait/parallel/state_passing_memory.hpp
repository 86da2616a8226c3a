// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Where the parts of a call of StatePassing lie in its memory, in bytes.

#include <cstddef>
#include <cstdint>

#include <krait/core/workspace.hpp>
#include <krait/ops/causal_conv1d.hpp>
#include <krait/parallel/saving.hpp>
#include <krait/parallel/state_passing_plan.hpp>

namespace krait::impl {

/// States of m pieces in a forward. Without those of documents, the states of the scan stay where they arrived.
template <Scalar T, class Exec>
struct PassingStates {
  std::int64_t count;                          ///< m
  std::size_t conv, scan = 0;                  ///< that enter
  std::size_t final_conv = 0, final_scan = 0;  ///< that leave
  std::size_t bytes;

  PassingStates(const PassingExchanges<T, Exec>& plan, std::int64_t pieces, PieceStates which) : count(pieces) {
    WorkspaceLayout space;
    const std::int64_t conv_elements = pieces * plan.halo.state();
    const std::int64_t scan_elements = pieces * plan.shape.state();
    conv = space.add<T>(conv_elements);
    if (which == PieceStates::all) {
      scan = space.add<accumulator_t<T>>(scan_elements);
      final_conv = space.add<T>(conv_elements);
      final_scan = space.add<accumulator_t<T>>(scan_elements);
    }
    bytes = space.bytes();
  }
};

/// The same of a backward, with gradients.
template <Scalar T, class Exec>
struct PassingStateGradients {
  std::int64_t count;
  std::size_t conv, scan;                // states that enter
  std::size_t dfinal_conv, dfinal_scan;  // gradients of those that leave
  std::size_t dconv = 0, dscan = 0;      // and of those that enter, when documents have states
  std::size_t bytes;

  PassingStateGradients(const PassingExchanges<T, Exec>& plan, std::int64_t pieces, PieceStates which) : count(pieces) {
    using A = accumulator_t<T>;
    WorkspaceLayout space;
    const std::int64_t conv_elements = pieces * plan.halo.state();
    const std::int64_t scan_elements = pieces * plan.shape.state();
    conv = space.add<T>(conv_elements);
    scan = space.add<A>(scan_elements);
    dfinal_conv = space.add<A>(conv_elements);
    dfinal_scan = space.add<A>(scan_elements);
    if (which == PieceStates::all) {
      dconv = space.add<A>(conv_elements);
      dscan = space.add<A>(scan_elements);
    }
    bytes = space.bytes();
  }
};

/// The workspace of a forward. In place, the convolution has its output where its input is.
template <Scalar T, class Exec>
struct PassingBlocks {
  std::size_t conv_out = 0, in_place = 0, in_place_bytes = 0, states, halo_out, halo_in, maps, exchange, bytes;

  PassingBlocks(const SequenceOperatorConfig& config, const PassingExchanges<T, Exec>& plan, bool overwrite_input) {
    const PassingStates<T, Exec> heads(plan, plan.slots, PieceStates::heads);
    WorkspaceLayout space;
    if (overwrite_input) {
      in_place_bytes = causal_conv1d_workspace_bytes<T, Exec>(1, plan.places, config.conv_channels(), config.d_conv);
      in_place = space.add<std::byte>(static_cast<std::int64_t>(in_place_bytes));
    } else {
      conv_out = space.add<T>(plan.places * config.conv_channels());
    }
    states = space.add<std::byte>(static_cast<std::int64_t>(heads.bytes));
    halo_out = space.add<T>(plan.halo.outgoing());
    halo_in = space.add<T>(plan.halo.incoming());
    maps = space.add<std::byte>(static_cast<std::int64_t>(plan.maps.bytes()));
    exchange = space.add<std::byte>(static_cast<std::int64_t>(plan.ascending_memory.bytes()));
    bytes = space.bytes();
  }
};

/// What a forward saves.
template <Scalar T, class Exec>
struct PassingSaved {
  std::size_t states, conv_states, conv_out = 0, bytes;

  PassingSaved(const SequenceOperatorConfig& config, const PassingExchanges<T, Exec>& plan, Saving saving) {
    WorkspaceLayout space;
    states = space.add<accumulator_t<T>>(plan.slots * plan.shape.state());
    conv_states = space.add<T>(plan.halo.states());
    if (saving == Saving::full) conv_out = space.add<T>(plan.places * config.conv_channels());
    bytes = space.bytes();
  }
};

/// The workspace of a backward.
template <Scalar T, class Exec>
struct PassingBackwardBlocks {
  std::size_t conv_out = 0, dconv_out, scratch, states, dhalo, firsts, dfirsts, dx, halo_out, halo_in, maps, exchange,
              bytes;
  std::size_t scratch_bytes;

  PassingBackwardBlocks(const SequenceOperatorConfig& config, const PassingExchanges<T, Exec>& plan, Saving saving,
                        std::size_t scratch_size)
      : scratch_bytes(scratch_size) {
    using A = accumulator_t<T>;
    const PassingStateGradients<T, Exec> open(plan, 2 * plan.slots, PieceStates::open);  // a head and a tail each
    WorkspaceLayout space;
    if (saving == Saving::lean) conv_out = space.add<T>(plan.places * config.conv_channels());
    dconv_out = space.add<T>(plan.places * config.conv_channels());
    scratch = space.add<std::byte>(static_cast<std::int64_t>(scratch_bytes));
    states = space.add<std::byte>(static_cast<std::int64_t>(open.bytes));
    dhalo = space.add<A>(plan.halo.states());
    firsts = space.add<T>(plan.halo.states());
    dfirsts = space.add<T>(plan.halo.states());
    dx = space.add<T>(plan.halo.states());
    halo_out = space.add<A>(plan.halo.incoming());
    halo_in = space.add<A>(plan.halo.outgoing());
    maps = space.add<std::byte>(static_cast<std::int64_t>(plan.maps.bytes()));
    exchange = space.add<std::byte>(static_cast<std::int64_t>(plan.descending_memory.bytes()));
    bytes = space.bytes();
  }
};

}  // namespace krait::impl
