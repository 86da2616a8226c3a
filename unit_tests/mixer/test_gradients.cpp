// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One array with a view for every parameter.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/core/error.hpp>
#include <krait/mixer/mamba_gradients.hpp>
#include <krait/mixer/mamba_parameters.hpp>
#include <support/callback_recorder.hpp>
#include <support/view_values.hpp>

namespace {

using namespace krait;        // NOLINT(google-build-using-namespace)
using namespace krait::test;  // NOLINT(google-build-using-namespace)
using Exec = Kokkos::DefaultExecutionSpace;

/// Calls `visit` with the gradient and the parameter of each name.
template <Scalar T, class Visit>
void for_each(const MambaGradients<T>& gradients, const MambaParameters<T>& parameters, const Visit& visit) {
  visit(gradients.in_proj_weight, parameters.in_proj_weight);
  visit(gradients.in_proj_bias, parameters.in_proj_bias);
  visit(gradients.conv_weight, parameters.conv_weight);
  visit(gradients.conv_bias, parameters.conv_bias);
  visit(gradients.dt_bias, parameters.dt_bias);
  visit(gradients.A_log, parameters.A_log);
  visit(gradients.D, parameters.D);
  visit(gradients.D_per_channel, parameters.D_per_channel);
  visit(gradients.norm_weight, parameters.norm_weight);
  visit(gradients.out_proj_weight, parameters.out_proj_weight);
  visit(gradients.out_proj_bias, parameters.out_proj_bias);
}

TEST(Gradients, HaveTheExtentsOfTheParametersOneBehindTheOther) {
  for (const int tensor_ranks : {1, 2}) {
    for (int options = 0; options < 16; ++options) {
      MambaConfig config{.d_model = 12, .head_dim = 3, .groups = 4, .d_state = 5};
      config.bias = (options & 1) != 0;
      config.conv_bias = (options & 2) != 0;
      config.D_has_hdim = (options & 4) != 0;
      config.rmsnorm = (options & 8) != 0;
      const Place tensor{0, tensor_ranks};
      const MambaParameters<bfloat16> parameters(Exec(), config, tensor);
      const MambaGradients<bfloat16> gradients(Exec(), config, tensor);
      EXPECT_EQ(gradients.count(), parameters.count());
      const float* next = gradients.flat().data();
      for_each(gradients, parameters, [&next](const auto& gradient, const auto& parameter) {
        EXPECT_EQ(extents_of(gradient), extents_of(parameter));
        EXPECT_EQ(gradient.size() == 0, parameter.size() == 0);
        if (gradient.size() == 0) return;
        EXPECT_EQ(gradient.data(), next);
        next += gradient.size();
      });
      EXPECT_EQ(next, gradients.flat().data() + gradients.flat().size());
    }
  }
}

TEST(Gradients, AreZeroAtFirstAndWhenAskedFor) {
  const Exec exec;
  const MambaConfig config{.d_model = 12, .head_dim = 3, .groups = 4, .d_state = 5};
  const MambaGradients<float> gradients(exec, config);
  EXPECT_THAT(values_of(gradients.flat()), testing::Each(0.0));
  assign(gradients.flat(), std::vector<double>(gradients.flat().size(), 3.0));
  const MambaGradients<float> copy = gradients;  // a handle
  EXPECT_THAT(values_of(copy.A_log), testing::Each(3.0));
  const CallbackRecorder recorder;
  zero(exec, gradients);
  EXPECT_TRUE(recorder.foreign_labels().empty());
  EXPECT_TRUE(recorder.allocations().empty());
  EXPECT_THAT(values_of(copy.flat()), testing::Each(0.0));
}

TEST(Gradients, OfOneRankAreScaledOnly) {
  const Exec exec;
  const MambaGradients<double> gradients(exec, {.d_model = 12, .head_dim = 3, .groups = 4, .d_state = 5});
  std::vector<double> values(gradients.flat().size());
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(i);
  assign(gradients.flat(), values);
  const auto self = Communicator::self();
  reduce_gradients(exec, self, gradients, 0.5);
  for (double& value : values) value /= 2;
  EXPECT_EQ(values_of(gradients.flat()), values);
  EXPECT_EQ(self.counters().total().calls, 0);
}

TEST(Gradients, NeedAConfigurationThatWorks) {
  EXPECT_THROW(MambaGradients<float>(Exec(), {.d_model = 12, .head_dim = 5}), ConfigError);
}

}  // namespace
