// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <krait/comm/communicator.hpp>
#include <krait/core/workspace.hpp>
#include <krait/layout/sequence_layout.hpp>
#include <krait/mixer/mamba_activations.hpp>
#include <krait/mixer/mamba_gradients.hpp>
#include <krait/mixer/mamba_mixer.hpp>
#include <memory>
#include <string>
#include <vector>

#include "model_config.hpp"
#include "tensors.hpp"
#include "tokens.hpp"

namespace genome::train {

/// A parameter and its gradient, as flat arrays.
template <class T>
struct Parameter {
  std::string name;
  Slice<T> value;
  Slice<T> gradient;
  bool decays = false;  ///< matrices; not norms, biases, A_log, D and dt_bias
};

template <class T>
class Model;

/// What a training step keeps and works with on this rank. All of it grows with the local tokens alone.
template <class T>
struct Activations {
  std::vector<Hidden<T>> streams;                      ///< the residual stream before each layer, and behind the last
  Hidden<T> normed;                                    ///< the stream behind a norm
  Hidden<T> dstream;                                   ///< gradient of the stream
  Hidden<T> dnormed;                                   ///< gradient of `normed`
  Hidden<T> logits;                                    ///< then their gradient
  Array<T> losses;                                     ///< per token, in nats
  std::vector<krait::MambaActivations<T, Exec>> kept;  ///< per layer

  Activations(const Exec& exec, const ModelConfig& config, const krait::SequenceLayout& layout);
};

/// Predicts the next symbol at every position of a sequence:
///
///     stream = embedding[symbol];  layers x: stream += mixer(norm(stream));  logits = head(norm(stream))
///
/// with root-mean-square norms. T is float, or double for tests. Every rank holds all parameters.
template <class T>
class Model {
 public:
  /// \param ranks     who shares the sequence
  /// \param strategy  how their mixers run
  /// \throws krait::ConfigError when no model can have these extents
  Model(const Exec& exec, const ModelConfig& config, const krait::Communicator& ranks,
        krait::Strategy strategy = krait::Strategy::automatic);

  /// Draws initial parameters, which depend on seed and extents alone. Blocks until done.
  void initialize(std::uint64_t seed);

  [[nodiscard]] const ModelConfig& config() const { return config_; }
  [[nodiscard]] const std::vector<Parameter<T>>& parameters() const { return parameters_; }
  [[nodiscard]] std::int64_t parameter_count() const;

  /// The mean loss over all predictions of all ranks, in nats, and in parameters() its gradient: the same bits on every
  /// rank. Collective.
  double loss_and_gradients(const krait::SequenceLayout& layout, const Tokens& tokens, Activations<T>& activations);

  /// Bytes that grow with the length in a training step on this rank, by the mixers' own account.
  [[nodiscard]] std::size_t activation_bytes(const krait::SequenceLayout& layout) const;

 private:
  using Mixer = krait::MambaMixer<T, Exec>;
  using Gradients = krait::MambaGradients<T, Exec>;

  /// Own parameters: (symbols, d) | a norm per layer and the last one, (d) each | head (symbols, d).
  struct Own {
    Array<T> flat;
    Slice<T> embedding;
    std::vector<Slice<T>> norms;
    Slice<T> head;
    Own(const Exec& exec, const std::string& label, const ModelConfig& config);
  };

  void list_parameters();
  void forward(const krait::SequenceLayout& layout, const Tokens& tokens, Activations<T>& activations);
  void backward(const krait::SequenceLayout& layout, const Tokens& tokens, Activations<T>& activations);
  void norm(const Hidden<T>& stream, const Slice<T>& weight, const Hidden<T>& normed);
  void norm_backward(const Hidden<T>& stream, std::size_t number, const Hidden<T>& dnormed, const Hidden<T>& dstream);
  [[nodiscard]] std::size_t own_workspace_bytes(std::int64_t tokens) const;
  krait::Tensor<std::byte*, Exec> workspace(std::int64_t tokens);

  Exec exec_;
  ModelConfig config_;
  krait::Communicator ranks_;
  std::shared_ptr<krait::Workspace<Exec>> workspace_;
  std::vector<Mixer> mixers_;
  std::vector<Gradients> mixer_gradients_;
  Own own_;
  Own own_gradients_;
  std::vector<Parameter<T>> parameters_;
};

}  // namespace genome::train
