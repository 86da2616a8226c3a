// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What every operator promises beside its values: it runs on the caller's instance, says its name, neither waits nor
// allocates once it is warm, and gives the same bits again and on any number of threads. (The scan has its own file.)
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <krait/ops/causal_conv1d.hpp>
#include <krait/ops/causal_conv1d_backward.hpp>
#include <krait/ops/causal_conv1d_update.hpp>
#include <krait/ops/gated_rms_norm.hpp>
#include <krait/ops/gated_rms_norm_backward.hpp>
#include <krait/ops/projection.hpp>
#include <krait/ops/projection_backward.hpp>
#include <krait/ops/state_update.hpp>
#include <string>
#include <vector>

#include <support/allclose.hpp>
#include <support/callback_recorder.hpp>
#include <support/random_view.hpp>
#include <support/strided_view.hpp>

namespace {

using krait::SequenceRuns;
using krait::test::Arrangement;
using krait::test::random_strided_view;
using krait::test::values_of;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

using Exec = Kokkos::DefaultExecutionSpace;

/// A call with tensors of its own.
struct Operation {
  std::string name;
  std::function<void(const Exec&)> call;
  std::function<std::vector<double>()> result;
  std::function<void()> reset = [] {};  ///< before a call whose results depend on what they were
};

template <class View>
void append(std::vector<double>& values, const View& view) {
  const auto more = values_of(view);
  values.insert(values.end(), more.begin(), more.end());
}

template <class... Views>
std::vector<double> values_of_all(const Views&... views) {
  std::vector<double> values;
  (append(values, views), ...);
  return values;
}

Kokkos::View<std::byte*> workspace(std::size_t bytes) {
  return Kokkos::View<std::byte*>(Kokkos::view_alloc("krait::test::workspace", Kokkos::WithoutInitializing), bytes);
}

constexpr std::int64_t rows = 2;
constexpr std::int64_t tokens = 300;
constexpr std::int64_t features = 140;

template <class T>
Operation convolution(Arrangement arrangement) {
  using A = krait::accumulator_t<T>;
  const SequenceRuns runs(rows, tokens, {{0, 0, 70, 0}, {0, 70, 300, 1}, {1, 5, 299, 2}}, 3);
  const auto x = random_strided_view<T>(arrangement, 1, rows, tokens, features);
  const auto out = krait::test::strided_view<T>(arrangement, rows, tokens, features);
  const auto weight = krait::test::random_view<Kokkos::View<A**>>(2, features, 4);
  const auto states = krait::test::random_view<Kokkos::View<T***>>(3, 3, features, 3);
  const auto final_states = krait::test::poisoned_view<Kokkos::View<T***>>(3, features, 3);
  const auto call = [=](const Exec& exec) {
    krait::CausalConv1dArguments<T> arguments;
    arguments.x = x;
    arguments.weight = weight;
    arguments.initial_states = states;
    arguments.out = out;
    arguments.final_states = final_states;
    krait::causal_conv1d<T>(exec, arguments, runs);
  };
  return {"krait::causal_conv1d", call, [out] { return values_of(out); }};
}

template <class T>
Operation convolution_backward(Arrangement arrangement) {
  using A = krait::accumulator_t<T>;
  const SequenceRuns runs(rows, tokens, {{0, 0, 70, 0}, {0, 70, 300, 1}, {1, 5, 299, 2}}, 3);
  const auto x = random_strided_view<T>(arrangement, 1, rows, tokens, features);
  const auto dout = random_strided_view<T>(arrangement, 2, rows, tokens, features);
  const auto dx = krait::test::strided_view<T>(arrangement, rows, tokens, features);
  const auto weight = krait::test::random_view<Kokkos::View<A**>>(3, features, 4);
  const auto bias = krait::test::random_view<Kokkos::View<A*>>(4, features);
  const auto states = krait::test::random_view<Kokkos::View<T***>>(5, 3, features, 3);
  const Kokkos::View<A**> dweight("krait::test::dweight", features, 4);
  const Kokkos::View<A*> dbias("krait::test::dbias", features);
  const auto dinitial = krait::test::poisoned_view<Kokkos::View<A***>>(3, features, 3);
  const auto space =
      workspace(krait::causal_conv1d_backward_workspace_bytes<T, Exec>(rows, tokens, features, weight.extent(1)));
  const auto call = [=](const Exec& exec) {
    krait::CausalConv1dBackwardArguments<T> arguments;
    arguments.x = x;
    arguments.weight = weight;
    arguments.bias = bias;
    arguments.initial_states = states;
    arguments.dout = dout;
    arguments.dfinal_states = states;
    arguments.dx = dx;
    arguments.dweight = dweight;
    arguments.dbias = dbias;
    arguments.dinitial_states = dinitial;
    arguments.workspace = space;
    krait::causal_conv1d_backward<T>(exec, arguments, runs);
  };
  const auto reset = [=] {
    krait::test::fill(dweight, 1);
    krait::test::fill(dbias, 1);
  };
  return {"krait::causal_conv1d_backward", call, [=] { return values_of_all(dx, dweight, dbias, dinitial); }, reset};
}

template <class T>
Operation norm(Arrangement arrangement) {
  const auto x = random_strided_view<T>(arrangement, 1, rows, tokens, features);
  const auto z = random_strided_view<T>(arrangement, 2, rows, tokens, features);
  const auto out = krait::test::strided_view<T>(arrangement, rows, tokens, features);
  const auto weight = krait::test::random_view<Kokkos::View<krait::accumulator_t<T>*>>(3, features);
  const auto call = [=](const Exec& exec) {
    krait::GatedRmsNormArguments<T> arguments;
    arguments.x = x;
    arguments.z = z;
    arguments.weight = weight;
    arguments.out = out;
    arguments.group_size = 70;
    krait::gated_rms_norm<T>(exec, arguments);
  };
  return {"krait::gated_rms_norm", call, [out] { return values_of(out); }};
}

template <class T>
Operation norm_backward(Arrangement arrangement) {
  using A = krait::accumulator_t<T>;
  const auto x = random_strided_view<T>(arrangement, 1, rows, tokens, features);
  const auto z = random_strided_view<T>(arrangement, 2, rows, tokens, features);
  const auto dout = random_strided_view<T>(arrangement, 3, rows, tokens, features);
  const auto dx = krait::test::strided_view<T>(arrangement, rows, tokens, features);
  const auto dz = krait::test::strided_view<T>(arrangement, rows, tokens, features);
  const auto weight = krait::test::random_view<Kokkos::View<A*>>(4, features);
  const auto bias = krait::test::random_view<Kokkos::View<A*>>(5, features);
  const Kokkos::View<A*> dweight("krait::test::dweight", features);
  const Kokkos::View<A*> dbias("krait::test::dbias", features);
  const auto space = workspace(krait::gated_rms_norm_backward_workspace_bytes<T, Exec>(rows, tokens, features));
  const auto call = [=](const Exec& exec) {
    krait::GatedRmsNormBackwardArguments<T> arguments;
    arguments.x = x;
    arguments.z = z;
    arguments.weight = weight;
    arguments.bias = bias;
    arguments.group_size = 70;
    arguments.dout = dout;
    arguments.dx = dx;
    arguments.dz = dz;
    arguments.dweight = dweight;
    arguments.dbias = dbias;
    arguments.workspace = space;
    krait::gated_rms_norm_backward<T>(exec, arguments);
  };
  const auto reset = [=] {
    krait::test::fill(dweight, 1);
    krait::test::fill(dbias, 1);
  };
  return {"krait::gated_rms_norm_backward", call, [=] { return values_of_all(dx, dz, dweight, dbias); }, reset};
}

template <class T>
Operation product(Arrangement arrangement) {
  const auto in = random_strided_view<T>(arrangement, 1, rows, tokens, features);
  const auto out = krait::test::strided_view<T>(arrangement, rows, tokens, 33);
  const auto weight = krait::test::random_view<Kokkos::View<T**, Kokkos::LayoutRight>>(2, 33, features);
  const auto bias = krait::test::random_view<Kokkos::View<krait::accumulator_t<T>*>>(3, 33);
  const auto call = [=](const Exec& exec) {
    krait::ProjectionArguments<T> arguments;
    arguments.in = in;
    arguments.weight = weight;
    arguments.bias = bias;
    arguments.out = out;
    krait::projection<T>(exec, arguments);
  };
  return {"krait::projection", call, [out] { return values_of(out); }};
}

template <class T>
Operation product_backward(Arrangement arrangement) {
  using A = krait::accumulator_t<T>;
  constexpr std::int64_t outputs = 33;
  constexpr std::int64_t length = 2000;  // several blocks of tokens
  const auto in = random_strided_view<T>(arrangement, 1, rows, length, features);
  const auto dout = random_strided_view<T>(arrangement, 2, rows, length, outputs);
  const auto din = krait::test::strided_view<T>(arrangement, rows, length, features);
  const auto weight = krait::test::random_view<Kokkos::View<T**, Kokkos::LayoutRight>>(3, outputs, features);
  const Kokkos::View<A**, Kokkos::LayoutRight> dweight("krait::test::dweight", outputs, features);
  const Kokkos::View<A*> dbias("krait::test::dbias", outputs);
  const auto space = workspace(krait::projection_backward_workspace_bytes<T, Exec>(rows, length, features, outputs));
  const auto call = [=](const Exec& exec) {
    krait::ProjectionBackwardArguments<T> arguments;
    arguments.in = in;
    arguments.weight = weight;
    arguments.dout = dout;
    arguments.din = din;
    arguments.dweight = dweight;
    arguments.dbias = dbias;
    arguments.workspace = space;
    krait::projection_backward<T>(exec, arguments);
  };
  const auto reset = [=] {
    krait::test::fill(dweight, 1);
    krait::test::fill(dbias, 1);
  };
  return {"krait::projection_backward", call, [=] { return values_of_all(din, dweight, dbias); }, reset};
}

template <class T>
Operation convolution_update(Arrangement arrangement) {
  using A = krait::accumulator_t<T>;
  const auto x = random_strided_view<T>(arrangement, 1, rows, 3, features);
  const auto out = krait::test::strided_view<T>(arrangement, rows, 3, features);
  const auto weight = krait::test::random_view<Kokkos::View<A**>>(2, features, 4);
  const Kokkos::View<T***> states("krait::test::states", rows, features, 3);
  const auto call = [=](const Exec& exec) {
    krait::CausalConv1dUpdateArguments<T> arguments;
    arguments.states = states;
    arguments.x = x;
    arguments.weight = weight;
    arguments.out = out;
    krait::causal_conv1d_update<T>(exec, arguments);
  };
  const auto reset = [=] { krait::test::fill_normal(states, 3); };
  return {"krait::causal_conv1d_update", call, [=] { return values_of_all(out, states); }, reset};
}

/// With few heads: threads share them.
template <class T, class Layout>
Operation update() {
  using A = krait::accumulator_t<T>;
  using Tokens = Kokkos::View<T****, Layout>;
  constexpr std::int64_t heads = 3, head_dim = 70, d_state = 50;
  const auto x = krait::test::random_view<Tokens>(1, rows, 2, heads, head_dim);
  const auto B = krait::test::random_view<Tokens>(2, rows, 2, 1, d_state);
  const auto C = krait::test::random_view<Tokens>(3, rows, 2, 1, d_state);
  const auto z = krait::test::random_view<Tokens>(4, rows, 2, heads, head_dim);
  const auto dt = krait::test::random_view<Kokkos::View<T***>>(5, rows, 2, heads);
  const auto D = krait::test::random_view<Kokkos::View<A*>>(6, heads);
  const auto out = krait::test::poisoned_view<Tokens>(rows, 2, heads, head_dim);
  const Kokkos::View<A*> rates("krait::test::A", heads);
  krait::test::fill_uniform(rates, 7, -16, -1);
  const Kokkos::View<A****, Layout> states("krait::test::states", rows, heads, head_dim, d_state);
  const auto call = [=](const Exec& exec) {
    krait::StateUpdateArguments<T> arguments;
    arguments.states = states;
    arguments.x = x;
    arguments.dt = dt;
    arguments.A = rates;
    arguments.B = B;
    arguments.C = C;
    arguments.D = D;
    arguments.z = z;
    arguments.out = out;
    krait::state_update<T>(exec, arguments);
  };
  const auto reset = [=] { krait::test::fill_normal(states, 8); };
  return {"krait::state_update", call, [=] { return values_of_all(out, states); }, reset};
}

/// Every operator on every path of this build.
std::vector<Operation> operations() {
  std::vector<Operation> all;
  for (const Arrangement arrangement : {Arrangement::features_last, Arrangement::features_first}) {
    all.push_back(convolution<float>(arrangement));
    all.push_back(convolution<krait::bfloat16>(arrangement));
    all.push_back(convolution_backward<float>(arrangement));
    all.push_back(convolution_backward<krait::bfloat16>(arrangement));
    all.push_back(norm<float>(arrangement));
    all.push_back(norm<krait::bfloat16>(arrangement));
    all.push_back(norm_backward<float>(arrangement));
    all.push_back(norm_backward<krait::bfloat16>(arrangement));
    all.push_back(product<float>(arrangement));
    all.push_back(product<krait::bfloat16>(arrangement));
    all.push_back(product_backward<float>(arrangement));
    all.push_back(product_backward<krait::bfloat16>(arrangement));
    all.push_back(convolution_update<float>(arrangement));
    all.push_back(convolution_update<krait::bfloat16>(arrangement));
  }
  all.push_back(update<float, Kokkos::LayoutRight>());
  all.push_back(update<float, Kokkos::LayoutLeft>());
  all.push_back(update<krait::bfloat16, Kokkos::LayoutRight>());
  return all;
}

TEST(OperatorContract, RunsOnTheCallersInstance) {
  const Exec exec = Kokkos::Experimental::partition_space(Exec(), 1)[0];
  const auto device = Kokkos::Tools::Experimental::device_id(exec);
  if (device == Kokkos::Tools::Experimental::device_id(Exec()))
    GTEST_SKIP() << "this backend gives one id to all its instances (Kokkos's host backends do)";
  for (const Operation& operation : operations()) {
    SCOPED_TRACE(operation.name);
    operation.call(exec);
    const krait::test::CallbackRecorder recorder;
    operation.call(exec);
    for (const auto& kernel : recorder.kernels()) EXPECT_EQ(kernel.device, device) << kernel.label;
  }
}

TEST(OperatorContract, NeitherWaitsNorAllocatesOnceWarm) {
  const Exec exec;
  for (const Operation& operation : operations()) {
    SCOPED_TRACE(operation.name);
    operation.call(exec);
    const krait::test::CallbackRecorder recorder;
    operation.call(exec);
    for (const auto& fence : recorder.fences()) ADD_FAILURE() << "fence: " << fence.label;
    EXPECT_THAT(recorder.allocations(), IsEmpty());
    EXPECT_THAT(recorder.copies(), IsEmpty());
  }
}

TEST(OperatorContract, EveryLabelNamesTheOperator) {
  const Exec exec;
  for (const Operation& operation : operations()) {
    SCOPED_TRACE(operation.name);
    const krait::test::CallbackRecorder recorder;
    operation.call(exec);
    ASSERT_FALSE(recorder.regions().empty());
    EXPECT_THAT(recorder.regions().front(), StartsWith(operation.name + "["));
    const bool by_kokkos_kernels = recorder.regions().front().find("[kokkos_kernels") != std::string::npos;
    if (by_kokkos_kernels) continue;  // names its kernels itself, inside our region
    ASSERT_THAT(recorder.kernels(), Not(IsEmpty()));
    for (const auto& kernel : recorder.kernels())
      EXPECT_THAT(kernel.label, StartsWith(recorder.regions().front())) << kernel.label;
  }
}

TEST(OperatorContract, SameBitsAgainAndOnAnyNumberOfThreads) {
  const Exec all;
  const auto parts = Kokkos::Experimental::partition_space(all, 2, 1);
  for (const Operation& operation : operations()) {
    SCOPED_TRACE(operation.name);
    const auto result = [&](const Exec& exec) {
      operation.reset();
      operation.call(exec);
      return operation.result();
    };
    const auto want = result(all);
    EXPECT_EQ(result(all), want);
    EXPECT_EQ(result(parts[0]), want);
    EXPECT_EQ(result(parts[1]), want);
  }
}

}  // namespace
