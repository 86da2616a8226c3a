// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gtest/gtest.h>

#include <cmath>
#include <krait/reference/ssd_scan.hpp>

/// The reference against sums that can be written down directly.

namespace {

using krait::SequenceRuns;
using krait::reference::SsdScan;

TEST(SsdScanReference, GeometricSum) {
  SsdScan in{.dt_softplus = false};
  constexpr std::size_t length = 6;
  const double step = std::log(2.0);
  in.x.assign(length, 1.0);
  in.dt.assign(length, step);
  in.A = {-1.0};
  in.B.assign(length, 1.0);
  in.C.assign(length, 3.0);
  in.D = {0.5};
  in.initial_states = {8.0};
  const auto result = krait::reference::ssd_scan(in, SequenceRuns::whole_rows(1, length));
  for (std::size_t t = 0; t < length; ++t) {
    const double passed = std::exp2(-static_cast<double>(t + 1));
    EXPECT_NEAR(result.out[t], 3 * (8 * passed + 2 * step * (1 - passed)) + 0.5, 1e-14);
  }
  EXPECT_NEAR(result.final_states[0], 8.0 / 64 + 2 * step * (63.0 / 64), 1e-14);
}

/// Without decay the scan is linear attention: y_t = sum_k delta_k <B_k, C_t> x_k.
TEST(SsdScanReference, IndicesOfLinearAttention) {
  constexpr std::int64_t rows = 2, L = 4, H = 4, P = 2, G = 2, N = 3;
  SsdScan in{.heads = H, .head_dim = P, .groups = G, .d_state = N};
  const auto values = [](std::int64_t count, double seed) {
    std::vector<double> result;
    for (std::int64_t i = 0; i < count; ++i) result.push_back(std::sin(seed + 1.7 * static_cast<double>(i)));
    return result;
  };
  in.x = values(rows * L * H * P, 1);
  in.dt = values(rows * L * H, 2);
  in.B = values(rows * L * G * N, 3);
  in.C = values(rows * L * G * N, 4);
  in.z = values(rows * L * H * P, 5);
  in.dt_bias = values(H, 6);
  in.D_per_channel = values(H * P, 7);
  in.A.assign(H, 0.0);
  in.dt_min = 0.5;
  in.dt_max = 1.0;
  // Row 0: tokens 0, 1 and 2, with token 3 padding; row 1: 0...3, from token 1 on.
  const SequenceRuns runs(rows, L, {{0, 0, 2, 1}, {0, 2, 3, 0}, {1, 1, 4, 2}}, 3);
  const auto result = krait::reference::ssd_scan(in, runs);
  std::vector<double> want(in.x.size(), 0.0);
  for (const auto& run : runs.host()) {
    for (auto t = run.begin; t < run.end; ++t) {
      for (auto k = run.begin; k <= t; ++k) {
        for (int i = 0; i < H * P; ++i) {
          const int h = i / P, g = h / 2;
          double product = 0;
          for (int n = 0; n < N; ++n) {
            product += in.B[static_cast<std::size_t>(((run.row * L + k) * G + g) * N + n)] *
                       in.C[static_cast<std::size_t>(((run.row * L + t) * G + g) * N + n)];
          }
          const double raw =
              in.dt[static_cast<std::size_t>((run.row * L + k) * H + h)] + in.dt_bias[static_cast<std::size_t>(h)];
          const double delta = std::clamp(std::log(1 + std::exp(raw)), 0.5, 1.0);
          want[static_cast<std::size_t>((run.row * L + t) * H * P + i)] +=
              delta * product * in.x[static_cast<std::size_t>((run.row * L + k) * H * P + i)];
        }
      }
    }
  }
  for (std::size_t i = 0; i < want.size(); ++i) {
    const auto token = static_cast<std::int64_t>(i) / (H * P);
    if (token == 3 || token == 4) {
      EXPECT_EQ(result.out[i], 0.0) << "padding";
      continue;
    }
    const double y = want[i] + in.D_per_channel[i % (H * P)] * in.x[i];
    EXPECT_NEAR(result.y[i], y, 1e-14);
    EXPECT_NEAR(result.out[i], y * in.z[i] / (1 + std::exp(-in.z[i])), 1e-14);
  }
}

}  // namespace
