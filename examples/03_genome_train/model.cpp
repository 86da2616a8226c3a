// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "model.hpp"

#include <algorithm>
#include <cmath>
#include <krait/comm/reductions.hpp>
#include <krait/core/random.hpp>
#include <krait/ops/gated_rms_norm.hpp>
#include <krait/ops/gated_rms_norm_backward.hpp>
#include <krait/ops/projection.hpp>
#include <krait/ops/projection_backward.hpp>

#include "cross_entropy.hpp"
#include "embedding.hpp"
#include "symbols.hpp"

namespace genome::train {
namespace {

constexpr double norm_epsilon = 1e-5;
constexpr double embedding_deviation = 1;

// Streams of krait::uniform and krait::normal; the mixers have seeds of their own.
constexpr std::uint64_t embedding_stream = 1;
constexpr std::uint64_t head_stream = 2;

template <class T>
struct AddTo {
  Hidden<T> sum;
  Hidden<T> addend;
  KOKKOS_FUNCTION void operator()(std::int64_t i, std::int64_t j) const { sum(0, i, j) += addend(0, i, j); }
};

template <class T>
void add(const Exec& exec, const Hidden<T>& sum, const Hidden<T>& addend) {
  Kokkos::parallel_for("krait_genome_train::add",
                       range(exec, static_cast<std::int64_t>(sum.extent(1)), static_cast<std::int64_t>(sum.extent(2))),
                       AddTo<T>{sum, addend});
}

/// A (symbols, d) slice as a matrix.
template <class T>
krait::Tensor<T**, Exec> matrix(const Slice<T>& slice) {
  return krait::make_tensor<T**, Exec, 2>(slice.data(), {symbols, static_cast<std::int64_t>(slice.size()) / symbols});
}

template <class T, class Value>
void fill(const Exec& exec, const Slice<T>& slice, const Value& value) {
  const auto host = Kokkos::create_mirror_view(slice);
  for (std::size_t i = 0; i < host.size(); ++i) host(i) = static_cast<T>(value(i));
  Kokkos::deep_copy(exec, slice, host);
  exec.fence("krait_genome_train: initial values are in place");
}

}  // namespace

template <class T>
Activations<T>::Activations(const Exec& exec, const ModelConfig& config, const krait::SequenceLayout& layout)
    : losses(Kokkos::view_alloc(exec, Kokkos::WithoutInitializing, "krait_genome_train::losses"),
             static_cast<std::size_t>(layout.local_length())),
      kept(static_cast<std::size_t>(config.layers)) {
  const auto hidden = [&](const char* label, std::int64_t features) {
    return make_hidden<T>(exec, std::string("krait_genome_train::") + label, layout.local_length(), features);
  };
  for (std::int64_t i = 0; i <= config.layers; ++i) streams.push_back(hidden("stream", config.d_model));
  normed = hidden("normed", config.d_model);
  dstream = hidden("dstream", config.d_model);
  dnormed = hidden("dnormed", config.d_model);
  logits = hidden("logits", symbols);
}

template <class T>
Model<T>::Own::Own(const Exec& exec, const std::string& label, const ModelConfig& config)
    : flat(Kokkos::view_alloc(exec, label),
           static_cast<std::size_t>((2 * std::int64_t{symbols} + config.layers + 1) * config.d_model)) {
  std::int64_t begin = 0;
  const auto next = [&](std::int64_t rows) {
    const Slice<T> slice(flat.data() + begin, static_cast<std::size_t>(rows * config.d_model));
    begin += rows * config.d_model;
    return slice;
  };
  embedding = next(symbols);
  for (std::int64_t i = 0; i <= config.layers; ++i) norms.push_back(next(1));
  head = next(symbols);
}

template <class T>
Model<T>::Model(const Exec& exec, const ModelConfig& config, const krait::Communicator& ranks, krait::Strategy strategy)
    : exec_(exec),
      config_((config.validate(), config)),
      ranks_(ranks),
      workspace_(std::make_shared<krait::Workspace<Exec>>("krait_genome_train::workspace")),
      own_(exec, "krait_genome_train::parameters", config),
      own_gradients_(exec, "krait_genome_train::gradients", config) {
  const krait::Parallel parallel{.context = ranks, .strategy = strategy, .divisibility = krait::Divisibility::uneven};
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    mixers_.emplace_back(exec, config.mixer(), parallel, workspace_);
    mixer_gradients_.emplace_back(exec, config.mixer());
  }
  list_parameters();
}

template <class T>
void Model<T>::list_parameters() {
  const auto add = [this](const std::string& name, const auto& value, const auto& gradient, bool decays) {
    if (value.size() == 0) return;
    parameters_.push_back(
        {name, Slice<T>(value.data(), value.size()), Slice<T>(gradient.data(), gradient.size()), decays});
  };
  constexpr bool decays = true;
  add("embedding", own_.embedding, own_gradients_.embedding, decays);
  for (std::size_t layer = 0; layer < mixers_.size(); ++layer) {
    const std::string prefix = "layers." + std::to_string(layer) + ".";
    const auto& values = mixers_[layer].parameters();
    const Gradients& gradients = mixer_gradients_[layer];
    add(prefix + "norm.weight", own_.norms[layer], own_gradients_.norms[layer], !decays);
    add(prefix + "mixer.in_proj.weight", values.in_proj_weight, gradients.in_proj_weight, decays);
    add(prefix + "mixer.conv1d.weight", values.conv_weight, gradients.conv_weight, decays);
    add(prefix + "mixer.conv1d.bias", values.conv_bias, gradients.conv_bias, !decays);
    add(prefix + "mixer.dt_bias", values.dt_bias, gradients.dt_bias, !decays);
    add(prefix + "mixer.A_log", values.A_log, gradients.A_log, !decays);
    add(prefix + "mixer.D", values.D, gradients.D, !decays);
    add(prefix + "mixer.norm.weight", values.norm_weight, gradients.norm_weight, !decays);
    add(prefix + "mixer.out_proj.weight", values.out_proj_weight, gradients.out_proj_weight, decays);
  }
  add("norm.weight", own_.norms.back(), own_gradients_.norms.back(), !decays);
  add("head.weight", own_.head, own_gradients_.head, decays);
}

template <class T>
void Model<T>::initialize(std::uint64_t seed) {
  fill(exec_, own_.embedding,
       [=](std::size_t i) { return embedding_deviation * krait::normal(seed, embedding_stream, i); });
  for (const Slice<T>& norm : own_.norms) fill(exec_, norm, [](std::size_t) { return 1; });
  const double bound = 1 / std::sqrt(static_cast<double>(config_.d_model));
  fill(exec_, own_.head, [=](std::size_t i) { return bound * (2 * krait::uniform(seed, head_stream, i) - 1); });
  for (std::size_t layer = 0; layer < mixers_.size(); ++layer) {
    mixers_[layer].initialize(krait::mix64(seed + layer));
  }
}

template <class T>
std::int64_t Model<T>::parameter_count() const {
  std::int64_t count = 0;
  for (const Parameter<T>& parameter : parameters_) count += static_cast<std::int64_t>(parameter.value.size());
  return count;
}

template <class T>
double Model<T>::loss_and_gradients(const krait::SequenceLayout& layout, const Tokens& tokens,
                                    Activations<T>& activations) {
  Kokkos::deep_copy(exec_, own_gradients_.flat, T(0));
  for (const Gradients& gradients : mixer_gradients_) krait::zero(exec_, gradients);

  forward(layout, tokens, activations);
  cross_entropy<T>(exec_, tokens.targets, 1 / static_cast<double>(tokens.predictions), activations.logits,
                   activations.losses);
  backward(layout, tokens, activations);

  for (const Gradients& gradients : mixer_gradients_) krait::reduce_gradients(exec_, ranks_, gradients);
  krait::comm::all_reduce(exec_, ranks_, own_gradients_.flat, own_gradients_.flat, krait::Reduction::sum).wait();
  const Kokkos::View<double*, Kokkos::HostSpace> loss("krait_genome_train::loss", 1);
  loss(0) = sum_of<T>(exec_, activations.losses);
  krait::comm::all_reduce(Kokkos::DefaultHostExecutionSpace(), ranks_, loss, loss, krait::Reduction::sum).wait();
  return loss(0) / static_cast<double>(tokens.predictions);
}

template <class T>
void Model<T>::forward(const krait::SequenceLayout& layout, const Tokens& tokens, Activations<T>& activations) {
  embed<T>(exec_, tokens.inputs, own_.embedding, activations.streams.front());
  for (std::size_t layer = 0; layer < mixers_.size(); ++layer) {
    const Hidden<T>& stream = activations.streams[layer];
    const Hidden<T>& next = activations.streams[layer + 1];
    norm(stream, own_.norms[layer], activations.normed);
    mixers_[layer].forward(exec_, activations.normed, layout, next, activations.kept[layer]);
    add(exec_, next, stream);
  }
  norm(activations.streams.back(), own_.norms.back(), activations.normed);
  krait::projection(exec_,
                    krait::ProjectionArguments<T, Exec>{
                        .in = activations.normed, .weight = matrix(own_.head), .bias = {}, .out = activations.logits});
}

/// `activations.logits` holds their gradient, `activations.normed` what the head has read.
template <class T>
void Model<T>::backward(const krait::SequenceLayout& layout, const Tokens& tokens, Activations<T>& activations) {
  const Hidden<T>& dstream = activations.dstream;
  const Hidden<T>& dnormed = activations.dnormed;
  const krait::ProjectionBackwardArguments<T, Exec> head{.in = activations.normed,
                                                         .weight = matrix(own_.head),
                                                         .dout = activations.logits,
                                                         .din = dnormed,
                                                         .dweight = matrix(own_gradients_.head),
                                                         .dbias = {},
                                                         .workspace = workspace(layout.local_length())};
  krait::projection_backward(exec_, head);
  norm_backward(activations.streams.back(), mixers_.size(), dnormed, dstream);
  for (std::size_t layer = mixers_.size(); layer-- > 0;) {
    const Hidden<T>& stream = activations.streams[layer];
    norm(stream, own_.norms[layer], activations.normed);  // cheaper than to keep it
    mixers_[layer].backward(exec_, activations.normed, layout, activations.kept[layer], dstream, dnormed,
                            mixer_gradients_[layer]);
    norm_backward(stream, layer, dnormed, dnormed);
    add(exec_, dstream, dnormed);
  }
  embed_backward<T>(exec_, tokens.inputs, dstream, own_gradients_.embedding,
                    reinterpret_cast<T*>(workspace(layout.local_length()).data()));
}

template <class T>
void Model<T>::norm(const Hidden<T>& stream, const Slice<T>& weight, const Hidden<T>& normed) {
  krait::gated_rms_norm(
      exec_, krait::GatedRmsNormArguments<T, Exec>{
                 .x = stream, .z = {}, .weight = weight, .bias = {}, .out = normed, .epsilon = norm_epsilon});
}

template <class T>
void Model<T>::norm_backward(const Hidden<T>& stream, std::size_t number, const Hidden<T>& dnormed,
                             const Hidden<T>& dstream) {
  krait::gated_rms_norm_backward(exec_, krait::GatedRmsNormBackwardArguments<T, Exec>{
                                            .x = stream,
                                            .z = {},
                                            .weight = own_.norms[number],
                                            .bias = {},
                                            .epsilon = norm_epsilon,
                                            .rstd = {},
                                            .dout = dnormed,
                                            .dx = dstream,
                                            .dz = {},
                                            .dweight = own_gradients_.norms[number],
                                            .dbias = {},
                                            .out = {},
                                            .workspace = workspace(static_cast<std::int64_t>(stream.extent(1)))});
}

/// Of the pieces around the mixers, which share the mixers' workspace.
template <class T>
std::size_t Model<T>::own_workspace_bytes(std::int64_t tokens) const {
  return std::max({krait::projection_backward_workspace_bytes<T, Exec>(1, tokens, config_.d_model, symbols),
                   krait::gated_rms_norm_backward_workspace_bytes<T, Exec>(1, tokens, config_.d_model),
                   embed_backward_bytes<T>(tokens, config_.d_model)});
}

template <class T>
krait::Tensor<std::byte*, Exec> Model<T>::workspace(std::int64_t tokens) {
  const std::size_t bytes = own_workspace_bytes(tokens);
  workspace_->reserve(exec_, bytes);
  return krait::make_tensor<std::byte*, Exec, 1>(workspace_->template at<std::byte>(0),
                                                 {static_cast<std::int64_t>(bytes)});
}

template <class T>
std::size_t Model<T>::activation_bytes(const krait::SequenceLayout& layout) const {
  const std::int64_t tokens = layout.local_length();
  const std::int64_t hiddens = config_.layers + 4;  // streams, and the other three of Activations
  std::size_t bytes = static_cast<std::size_t>(tokens * (hiddens * config_.d_model + symbols + 1)) * sizeof(T);
  std::size_t work = own_workspace_bytes(tokens);
  for (const Mixer& mixer : mixers_) {
    bytes += mixer.saved_bytes(layout, 1);
    work = std::max({work, mixer.workspace_bytes(layout, 1), mixer.backward_workspace_bytes(layout, 1)});
  }
  return bytes + work;
}

template struct Activations<float>;
template struct Activations<double>;
template class Model<float>;
template class Model<double>;

}  // namespace genome::train
