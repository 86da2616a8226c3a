// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

/// \file
/// Which tensors a GPU takes in packs of 16 bytes: those whose rows are aligned. What the kernels say of themselves.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/ops/causal_conv1d.hpp>
#include <krait/ops/causal_conv1d_backward.hpp>
#include <krait/ops/gated_rms_norm.hpp>
#include <krait/ops/gated_rms_norm_backward.hpp>
#include <krait/ops/state_update.hpp>
#include <string>

#include <support/callback_recorder.hpp>
#include <support/random_view.hpp>
#include <support/ssd_data.hpp>
#include <support/strided_view.hpp>

namespace {

using krait::SequenceRuns;
using krait::test::Arrangement;
using krait::test::CallbackRecorder;
using krait::test::random_strided_view;

using Exec = Kokkos::DefaultExecutionSpace;
using Scalars = testing::Types<float, double, krait::bfloat16, krait::float16>;

/// How a kernel of the operator that call() runs names its path.
template <class Call>
std::string path_of(const Call& call) {
  const CallbackRecorder recorder;
  call();
  if (recorder.kernels().empty()) return "no kernel";
  const std::string& label = recorder.kernels().front().label;
  const auto begin = label.find('[') + 1;
  return label.substr(begin, label.find(',') - begin);
}

template <class T>
class OpsPacks : public testing::Test {};
TYPED_TEST_SUITE(OpsPacks, Scalars);

/// What two (rows, tokens, features) tensors of a call and the numbers of features let a kernel do.
struct Case {
  Arrangement in;
  Arrangement out;
  std::int64_t features;
  const char* path;
};
constexpr Case cases[] = {{Arrangement::features_last, Arrangement::features_last, 48, "device"},
                          {Arrangement::aligned_slice, Arrangement::features_last, 48, "device"},
                          {Arrangement::features_last, Arrangement::aligned_slice, 48, "device"},
                          {Arrangement::slice, Arrangement::features_last, 48, "device_strided"},
                          {Arrangement::features_last, Arrangement::slice, 48, "device_strided"},
                          {Arrangement::features_last, Arrangement::gaps, 48, "device_strided"},
                          {Arrangement::features_first, Arrangement::features_last, 48, "device_strided"},
                          {Arrangement::features_last, Arrangement::features_last, 49, "device_strided"}};

TYPED_TEST(OpsPacks, CausalConv1d) {
  using A = krait::accumulator_t<TypeParam>;
  const auto runs = SequenceRuns::whole_rows(2, 5);
  for (const Case& c : cases) {
    SCOPED_TRACE(testing::Message() << static_cast<int>(c.in) << static_cast<int>(c.out) << ' ' << c.features);
    for (const std::int64_t taps : {1, 2, 3, 4, 5}) {
      const auto x = random_strided_view<TypeParam>(c.in, 1, 2, 5, c.features);
      const auto out = krait::test::strided_view<TypeParam>(c.out, 2, 5, c.features);
      const auto weight = krait::test::random_view<Kokkos::View<A**, Kokkos::LayoutRight>>(2, c.features, taps);
      const auto by_taps = krait::test::random_view<Kokkos::View<A**, Kokkos::LayoutLeft>>(2, c.features, taps);
      krait::CausalConv1dArguments<TypeParam> arguments;
      arguments.x = x;
      arguments.out = out;
      arguments.weight = weight;
      const auto call = [&] { krait::causal_conv1d<TypeParam>(Exec(), arguments, runs); };
      const bool fixed = 2 <= taps && taps <= 4;
      EXPECT_EQ(path_of(call), fixed ? c.path : "device_strided") << taps;
      if (!fixed) continue;
      arguments.weight = by_taps;
      EXPECT_EQ(path_of(call), "device_strided") << taps;
    }
  }
}

TYPED_TEST(OpsPacks, GatedRmsNorm) {
  using A = krait::accumulator_t<TypeParam>;
  for (const Case& c : cases) {
    SCOPED_TRACE(testing::Message() << static_cast<int>(c.in) << static_cast<int>(c.out) << ' ' << c.features);
    const auto x = random_strided_view<TypeParam>(c.in, 1, 2, 5, c.features);
    const auto z = random_strided_view<TypeParam>(c.out, 2, 2, 5, c.features);
    const auto weight = krait::test::random_view<Kokkos::View<A*>>(3, c.features);
    krait::GatedRmsNormArguments<TypeParam> arguments;
    arguments.x = x;
    arguments.z = z;
    arguments.out = x;
    arguments.weight = weight;
    const auto call = [&] { krait::gated_rms_norm<TypeParam>(Exec(), arguments); };
    EXPECT_EQ(path_of(call), c.path);
    if (c.features != 48) continue;
    arguments.group_size = 24;
    EXPECT_EQ(path_of(call), c.path);
    arguments.group_size = 3;
    EXPECT_EQ(path_of(call), "device_strided");
  }
}

TYPED_TEST(OpsPacks, Backward) {
  using A = krait::accumulator_t<TypeParam>;
  const auto runs = SequenceRuns::whole_rows(2, 5);
  for (const Case& c : cases) {
    SCOPED_TRACE(testing::Message() << static_cast<int>(c.in) << static_cast<int>(c.out) << ' ' << c.features);
    const auto x = random_strided_view<TypeParam>(c.in, 1, 2, 5, c.features);
    const auto dout = random_strided_view<TypeParam>(c.out, 2, 2, 5, c.features);
    const auto weight = krait::test::random_view<Kokkos::View<A**, Kokkos::LayoutRight>>(2, c.features, 4);
    const auto gain = krait::test::random_view<Kokkos::View<A*>>(3, c.features);
    krait::CausalConv1dBackwardArguments<TypeParam> conv;
    conv.x = x;
    conv.dx = x;
    conv.dout = dout;
    conv.weight = weight;
    EXPECT_EQ(path_of([&] { krait::causal_conv1d_backward<TypeParam>(Exec(), conv, runs); }), c.path);
    krait::GatedRmsNormBackwardArguments<TypeParam> norm;
    norm.x = x;
    norm.weight = gain;
    norm.dout = dout;
    norm.dx = dout;
    const auto call = [&] { krait::gated_rms_norm_backward<TypeParam>(Exec(), norm); };
    EXPECT_EQ(path_of(call), c.path);
    // A workspace in which the sums are not aligned.
    const Kokkos::View<A*, Exec> memory("krait::test::workspace", 1024);
    norm.workspace = krait::Tensor<std::byte*, Exec>(reinterpret_cast<std::byte*>(memory.data() + 1),
                                                     Kokkos::LayoutStride(1023 * sizeof(A), 1));
    const auto dweight = krait::test::random_view<Kokkos::View<A*>>(4, c.features);
    norm.dweight = dweight;
    EXPECT_EQ(path_of(call), "device_strided");
  }
}

TYPED_TEST(OpsPacks, StateUpdate) {
  using V = krait::accumulator_t<TypeParam>;
  for (const std::int64_t d_state : {16, 24, 15}) {
    krait::test::ScanSetup setup;
    setup.shape = {.batch = 2, .length = 1, .heads = 2, .head_dim = 3, .groups = 1, .d_state = d_state};
    const krait::test::ScanData<TypeParam> data(setup, 2);
    const Kokkos::View<V****, Kokkos::LayoutLeft> left("krait::test::left", 2, 2, 3, static_cast<std::size_t>(d_state));
    const Kokkos::View<V****, Kokkos::LayoutRight> right("krait::test::right", 2, 2, 3,
                                                         static_cast<std::size_t>(d_state));
    const auto scan = data.arguments();
    krait::StateUpdateArguments<TypeParam> arguments;
    arguments.x = scan.x;
    arguments.dt = scan.dt;
    arguments.A = scan.A;
    arguments.B = scan.B;
    arguments.C = scan.C;
    arguments.out = scan.out;
    arguments.states = right;
    const auto call = [&] { krait::state_update<TypeParam>(Exec(), arguments); };
    EXPECT_EQ(path_of(call), d_state == 15 ? "device_strided" : "device") << d_state;
    arguments.states = left;
    EXPECT_EQ(path_of(call), "device_strided") << d_state;
  }
}

}  // namespace
