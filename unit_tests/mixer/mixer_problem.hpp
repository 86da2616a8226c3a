// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <krait/mixer/mamba_mixer.hpp>
#include <krait/reference/mamba_mixer_backward.hpp>
#include <parallel/sharded.hpp>
#include <support/random_view.hpp>
#include <support/view_values.hpp>
#include <vector>

namespace krait::test {

inline MambaConfig small_mixer(std::int64_t groups) {
  return {.d_model = 24, .head_dim = 6, .groups = groups, .d_state = 5, .chunk_size = 16};
}

/// The reference with a mixer's parameters.
template <Scalar T>
reference::MambaMixer reference_of(const MambaMixer<T>& mixer) {
  const MambaConfig& config = mixer.config();
  const auto& parameters = mixer.parameters();
  return {.d_model = config.d_model,
          .heads = config.head_count(),
          .head_dim = config.head_dim,
          .groups = config.groups,
          .d_state = config.d_state,
          .d_conv = config.d_conv,
          .silu = config.activation == Activation::silu,
          .rmsnorm = config.rmsnorm,
          .norm_before_gate = config.norm_before_gate,
          .norm_eps = config.norm_eps,
          .dt_min = config.dt_limit.first,
          .dt_max = config.dt_limit.second,
          .in_proj_weight = values_of(parameters.in_proj_weight),
          .in_proj_bias = values_of(parameters.in_proj_bias),
          .conv_weight = values_of(parameters.conv_weight),
          .conv_bias = values_of(parameters.conv_bias),
          .dt_bias = values_of(parameters.dt_bias),
          .A_log = values_of(parameters.A_log),
          .D = values_of(parameters.D),
          .D_per_channel = values_of(parameters.D_per_channel),
          .norm_weight = values_of(parameters.norm_weight),
          .out_proj_weight = values_of(parameters.out_proj_weight),
          .out_proj_bias = values_of(parameters.out_proj_bias)};
}

/// Runs a mixer on this rank's shard of the problem; returns its output.
template <Scalar T>
std::vector<double> run_mixer(MambaMixer<T>& mixer, const Communicator& context, const SequenceLayout& layout,
                              const DocumentMap& documents) {
  const Exec exec;
  const std::int64_t width = mixer.config().d_model;
  const auto hidden = make_shard<T>(layout, documents.rows(), width, normal_values(21, layout.length(), width));
  const auto out = poisoned_view<Array<T***>>(documents.rows(), layout.local_length(), width);
  mixer.forward(exec, context, hidden, layout, documents, out);
  exec.fence("krait::test: forward is done");
  return values_of(out);
}

/// The whole output of the reference, as a View.
template <Scalar T>
Array<double***> reference_output(const MambaMixer<T>& mixer, const DocumentMap& documents) {
  const std::int64_t width = mixer.config().d_model;
  const auto alone = SequenceLayout::contiguous(Place{}, documents.length());
  const auto hidden = make_shard<T>(alone, documents.rows(), width, normal_values(21, documents.length(), width));
  const auto values = reference_of(mixer)(values_of(hidden), documents.runs());
  const Array<double***> whole("krait::test::reference", hidden.extent(0), hidden.extent(1), hidden.extent(2));
  std::copy(values.begin(), values.end(), whole.data());
  return whole;
}

/// What a training step leaves: the gradient of this rank's hidden states and, summed over the ranks, of all
/// parameters.
struct MixerGradients {
  std::vector<double> dhidden;
  NamedGradients parameters;

  friend bool operator==(const MixerGradients&, const MixerGradients&) = default;
};

/// The members of MambaGradients that are there.
template <Scalar T>
NamedGradients named(const MambaGradients<T>& gradients) {
  NamedGradients result;
  const auto add = [&result](const char* name, const auto& view) {
    if (view.size() > 0) result.emplace_back(name, values_of(view));
  };
  add("in_proj_weight", gradients.in_proj_weight);
  add("in_proj_bias", gradients.in_proj_bias);
  add("conv_weight", gradients.conv_weight);
  add("conv_bias", gradients.conv_bias);
  add("dt_bias", gradients.dt_bias);
  add("A_log", gradients.A_log);
  add("D", gradients.D);
  add("D_per_channel", gradients.D_per_channel);
  add("norm_weight", gradients.norm_weight);
  add("out_proj_weight", gradients.out_proj_weight);
  add("out_proj_bias", gradients.out_proj_bias);
  return result;
}

/// A training problem on this rank's shard: hidden states, gradients of the output, and room for what comes.
template <Scalar T>
struct TrainingStep {
  std::int64_t width;
  Array<T***> hidden;
  Array<T***> out;
  Array<T***> dout;
  Array<T***> dhidden;
  MambaActivations<T> kept;
  MambaGradients<T> gradients;

  TrainingStep(const MambaMixer<T>& mixer, const SequenceLayout& layout, std::int64_t rows)
      : width(mixer.config().d_model),
        hidden(make_shard<T>(layout, rows, width, normal_values(21, layout.length(), width))),
        out(poisoned_view<Array<T***>>(rows, layout.local_length(), width)),
        dout(make_shard<T>(layout, rows, width, normal_values(22, layout.length(), width))),
        dhidden(poisoned_view<Array<T***>>(rows, layout.local_length(), width)),
        gradients(Exec(), mixer.config(), mixer.parallel().tensor.place()) {}

  MixerGradients run(MambaMixer<T>& mixer, const Communicator& context, const SequenceLayout& layout,
                     const DocumentMap& documents) {
    const Exec exec;
    mixer.forward(exec, context, hidden, layout, documents, out, kept);
    mixer.backward(exec, context, hidden, layout, documents, kept, dout, dhidden, gradients);
    reduce_gradients(exec, context, gradients);
    exec.fence("krait::test: backward is done");
    return {values_of(dhidden), named(gradients)};
  }
};

template <Scalar T>
MixerGradients train_step(MambaMixer<T>& mixer, const Communicator& context, const SequenceLayout& layout,
                          const DocumentMap& documents) {
  return TrainingStep<T>(mixer, layout, documents.rows()).run(mixer, context, layout, documents);
}

/// The same of the whole problem, for comparison with shards of it.
struct WholeGradients {
  Array<double***> dhidden;
  NamedGradients parameters;

  WholeGradients(const std::vector<double>& values, NamedGradients named, std::int64_t rows, std::int64_t length)
      : dhidden("krait::test::whole", static_cast<std::size_t>(rows), static_cast<std::size_t>(length),
                values.size() / static_cast<std::size_t>(std::max<std::int64_t>(rows * length, 1))),
        parameters(std::move(named)) {
    std::copy(values.begin(), values.end(), dhidden.data());
  }

  void expect(const MixerGradients& got, const SequenceLayout& layout, double tolerance,
              const std::string& what = {}) const {
    EXPECT_LE(relative_rms(got.dhidden, shard_of_whole(dhidden, layout)), tolerance)
        << layout.description() << ", " << what;
    EXPECT_TRUE(gradients_close(got.parameters, parameters, tolerance)) << layout.description() << ", " << what;
  }
};

/// By one rank with tokens in order.
template <Scalar T>
WholeGradients one_rank_gradients(MambaMixer<T>& mixer, const DocumentMap& documents) {
  const auto alone = SequenceLayout::contiguous(Place{}, documents.length());
  MixerGradients gradients = train_step(mixer, Communicator::self(), alone, documents);
  return {gradients.dhidden, std::move(gradients.parameters), documents.rows(), documents.length()};
}

/// By the reference.
template <Scalar T>
WholeGradients reference_gradients(const MambaMixer<T>& mixer, const DocumentMap& documents) {
  const std::int64_t width = mixer.config().d_model;
  const auto alone = SequenceLayout::contiguous(Place{}, documents.length());
  const auto whole = [&](std::uint64_t seed) {
    return values_of(make_shard<T>(alone, documents.rows(), width, normal_values(seed, documents.length(), width)));
  };
  const auto d = reference::mamba_mixer_backward(reference_of(mixer), whole(21), documents.runs(), whole(22));
  NamedGradients result;
  const auto add = [&result](const char* name, const std::vector<double>& values) {
    if (!values.empty()) result.emplace_back(name, values);
  };
  add("in_proj_weight", d.in_proj_weight);
  add("in_proj_bias", d.in_proj_bias);
  add("conv_weight", d.conv_weight);
  add("conv_bias", d.conv_bias);
  add("dt_bias", d.dt_bias);
  add("A_log", d.A_log);
  add("D", d.D);
  add("D_per_channel", d.D_per_channel);
  add("norm_weight", d.norm_weight);
  add("out_proj_weight", d.out_proj_weight);
  add("out_proj_bias", d.out_proj_bias);
  return {d.hidden, std::move(result), documents.rows(), documents.length()};
}

/// States that say more than the skip. The norm after the scan does not feel the length of its input, so where D = 1
/// makes nearly all of y, the gradient of D is a sum that cancels: tens of roundings of its terms in float.
template <Scalar T>
void make_skip_small(const MambaMixer<T>& mixer) {
  std::vector<double> values = values_of(mixer.parameters().D);
  for (double& value : values) value *= 0.25;
  assign(mixer.parameters().D, values);
}

/// Decays so slow that everything reaches the last token.
template <Scalar T>
void make_slow(const MambaMixer<T>& mixer) {
  std::vector<double> values = values_of(mixer.parameters().A_log);
  for (double& value : values) value += std::log(1e-3);
  assign(mixer.parameters().A_log, values);
}

/// Any rank count.
inline Parallel on(const Communicator& context, Strategy strategy = Strategy::automatic) {
  return {
      .context = context, .tensor = Communicator::self(), .strategy = strategy, .divisibility = Divisibility::uneven};
}

/// The strategy that exchanges tokens for heads, where there is somebody to exchange with.
inline Parallel on_heads(const Communicator& context) {
  return on(context, context.size() == 1 ? Strategy::local : Strategy::hidden_parallel);
}

/// Every strategy that works on more than one rank.
inline constexpr std::array shared_strategies = {Strategy::hidden_parallel, Strategy::state_passing};

inline const std::vector<std::int64_t> cu_of_53 = {0, 2, 2, 25, 26, 53};

inline DocumentMap documents_of_53(std::int64_t rows, bool packed) {
  if (!packed) return DocumentMap::whole_rows(rows, 53);
  return DocumentMap::from_cu_seqlens_per_row(
      std::vector<std::vector<std::int64_t>>(static_cast<std::size_t>(rows), cu_of_53), 53);
}

}  // namespace krait::test
