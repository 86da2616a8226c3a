// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <vector>

#include "model.hpp"
#include "tensors.hpp"

namespace genome::train {

/// Square root of the sum of all gradients' squares, summed in double over blocks of fixed size in their order: the
/// same bits on every rank and with any number of threads.
double gradient_norm(const Exec& exec, const std::vector<Parameter<float>>& parameters);

/// AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101): Adam with decoupled weight decay,
///
///     m = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2
///     value -= rate (m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon) + decay value)
///
/// m and v, in single precision, are flat arrays in the order of the parameters.
class AdamW {
 public:
  static constexpr double beta1 = 0.9;
  static constexpr double beta2 = 0.95;
  static constexpr double epsilon = 1e-8;

  /// \param decay  of the parameters that decay
  AdamW(const Exec& exec, const std::vector<Parameter<float>>& parameters, double decay);

  /// \param t               number of this step, from 1
  /// \param gradient_scale  what gradients are multiplied by first
  void step(const Exec& exec, const std::vector<Parameter<float>>& parameters, std::int64_t t, double rate,
            double gradient_scale);

  [[nodiscard]] const Array<float>& first_moment() const { return first_moment_; }
  [[nodiscard]] const Array<float>& second_moment() const { return second_moment_; }

 private:
  double decay_;
  Array<float> first_moment_;
  Array<float> second_moment_;
};

}  // namespace genome::train
