// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <krait/core/runs.hpp>
#include <krait/reference/causal_conv1d_backward.hpp>
#include <vector>

#include <support/finite_differences.hpp>

/// Every gradient of the reference convolution against finite differences of the reference convolution.

namespace {

using krait::SequenceRuns;
using krait::test::all_close;
using krait::test::by_differences;
using krait::test::finite_differences;
using krait::test::normal_numbers;
using krait::test::weighted_sum;

constexpr std::int64_t channels = 3;

struct Case {
  std::int64_t taps = 4;
  bool silu = true;
  bool bias = true;
  bool initial_states = false;
  bool final_states = false;
};

/// The tensors of a convolution, which itself only refers to them.
struct Tensors {
  std::vector<double> x, weight, bias, initial;

  Tensors(const Case& c, const SequenceRuns& runs)
      : x(normal_numbers(1, runs.rows() * runs.length() * channels)), weight(normal_numbers(2, channels * c.taps)) {
    if (c.bias) bias = normal_numbers(3, channels);
    if (c.initial_states) initial = normal_numbers(4, runs.states() * channels * (c.taps - 1));
  }

  [[nodiscard]] krait::reference::CausalConv1d convolution(const Case& c) const {
    return {.channels = channels,
            .taps = c.taps,
            .silu = c.silu,
            .x = x,
            .weight = weight,
            .bias = bias,
            .initial = initial};
  }
};

void expect_gradients(const Case& c, const SequenceRuns& runs) {
  Tensors tensors(c, runs);
  const std::int64_t states = runs.states() * channels * (c.taps - 1);
  const std::vector<double> dout = normal_numbers(5, static_cast<std::int64_t>(tensors.x.size()));
  const std::vector<double> dfinal = c.final_states ? normal_numbers(6, states) : std::vector<double>();
  const auto loss = [&] {
    const auto result = tensors.convolution(c)(runs);
    return weighted_sum(dout, result.out) + weighted_sum(dfinal, result.final_states);
  };
  const auto d = krait::reference::causal_conv1d_backward(tensors.convolution(c), runs, dout, dfinal);
  const auto expect = [&](const char* name, const std::vector<double>& got, std::vector<double>& input) {
    EXPECT_TRUE(all_close(got, finite_differences(input, loss), by_differences())) << "d" << name;
  };
  expect("x", d.x, tensors.x);
  expect("weight", d.weight, tensors.weight);
  expect("bias", d.bias, tensors.bias);
  // An absent initial state is one of zeros.
  if (tensors.initial.empty()) tensors.initial.assign(static_cast<std::size_t>(states), 0.0);
  expect("initial", d.initial, tensors.initial);
}

/// Two rows of 10 tokens: runs of 6, 0, 1 and 2 tokens with padding between them, then a row that begins with padding.
/// States are numbered out of order, and state 2 belongs to no run.
SequenceRuns packed_runs() {
  return {2, 10, {{0, 0, 6, 1}, {0, 6, 6, 0}, {0, 7, 8, 5}, {0, 8, 10, 3}, {1, 3, 10, 4}}, 6};
}

TEST(CausalConv1dBackwardReference, EveryOption) {
  const auto runs = packed_runs();
  for (std::int64_t taps = 1; taps <= 5; ++taps) {
    for (int bits = 0; bits < 16; ++bits) {
      SCOPED_TRACE(testing::Message() << "taps " << taps << ", bits " << bits);
      expect_gradients({.taps = taps,
                        .silu = (bits & 1) != 0,
                        .bias = (bits & 2) != 0,
                        .initial_states = (bits & 4) != 0,
                        .final_states = (bits & 8) != 0},
                       runs);
    }
  }
}

/// Rows of fewer tokens than the window reaches back: the final state is in part the initial one.
TEST(CausalConv1dBackwardReference, ShortRows) {
  for (const std::int64_t length : {1, 2, 3, 4, 9})
    expect_gradients({.taps = 5, .initial_states = true, .final_states = true}, SequenceRuns::whole_rows(2, length));
}

TEST(CausalConv1dBackwardReference, PaddingAndUnusedStatesGetZero) {
  const Case c{.initial_states = true, .final_states = true};
  const Tensors tensors(c, packed_runs());
  const std::vector<double> dout(tensors.x.size(), 1.0);
  const std::vector<double> dfinal(tensors.initial.size(), 1.0);
  const auto d = krait::reference::causal_conv1d_backward(tensors.convolution(c), packed_runs(), dout, dfinal);
  const auto all = [](const std::vector<double>& values, std::size_t size, std::size_t begin, double expected) {
    const auto first = values.begin() + static_cast<std::ptrdiff_t>(size * begin);
    return std::all_of(first, first + static_cast<std::ptrdiff_t>(size), [&](double v) { return v == expected; });
  };
  for (const std::size_t token : {6, 10, 11, 12}) EXPECT_TRUE(all(d.x, channels, token, 0));
  EXPECT_TRUE(all(d.initial, channels * 3, 2, 0)) << "a state of no run";
  EXPECT_TRUE(all(d.initial, channels * 3, 0, 1)) << "an empty run hands its gradient on";
}

}  // namespace
