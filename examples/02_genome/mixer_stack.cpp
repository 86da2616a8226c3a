// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "mixer_stack.hpp"

#include <krait/core/random.hpp>
#include <krait/layout/document_map.hpp>
#include <krait/ops/gated_rms_norm.hpp>
#include <string>

namespace genome {
namespace {

// Streams beside the tokens: the residual stream, and its norm, which the mixer's output replaces.
constexpr int streams = 2;

struct AddTo {
  Hidden stream;
  Hidden addend;
  KOKKOS_FUNCTION void operator()(std::int64_t i, std::int64_t j) const { stream(0, i, j) += addend(0, i, j); }
};

void add(const Exec& exec, const Hidden& stream, const Hidden& addend) {
  const Kokkos::MDRangePolicy<Exec, Kokkos::Rank<2>, Kokkos::IndexType<std::int64_t>> elements(
      exec, {0, 0}, {static_cast<std::int64_t>(stream.extent(1)), static_cast<std::int64_t>(stream.extent(2))});
  Kokkos::parallel_for("krait_genome::residual", elements, AddTo{stream, addend});
}

Hidden like(const Exec& exec, const Hidden& view, const std::string& label) {
  return Hidden(Kokkos::view_alloc(exec, Kokkos::WithoutInitializing, label), view.extent(0), view.extent(1),
                view.extent(2));
}

}  // namespace

krait::MambaConfig mixer_config(const Options& options) {
  return {.d_model = options.d_model, .head_dim = 32, .groups = 8, .d_state = 32};
}

MixerStack::MixerStack(const Exec& exec, const Options& options, const krait::Communicator& ranks,
                       krait::Strategy strategy)
    : strategy_(strategy), norm_weight_("krait_genome::norm_weight", static_cast<std::size_t>(options.d_model)) {
  Kokkos::deep_copy(exec, norm_weight_, 1.0F);
  const auto workspace = std::make_shared<krait::Workspace<Exec>>("krait_genome::workspace");
  mixers_.reserve(static_cast<std::size_t>(options.layers));
  for (std::int64_t layer = 0; layer < options.layers; ++layer) {
    const krait::Parallel parallel{.context = ranks, .strategy = strategy, .divisibility = krait::Divisibility::uneven};
    mixers_.emplace_back(exec, mixer_config(options), parallel, workspace);
    mixers_.back().initialize(krait::mix64(options.seed + static_cast<std::uint64_t>(layer)));
  }
}

void MixerStack::forward(const Exec& exec, const krait::SequenceLayout& layout, const Hidden& stream,
                         Progress& progress) {
  const auto documents = krait::DocumentMap::whole_rows(1, layout.length());
  const Hidden branch = like(exec, stream, "krait_genome::branch");
  for (std::size_t layer = 0; layer < mixers_.size(); ++layer) {
    progress.begin("layer " + std::to_string(layer + 1) + " of " + std::to_string(mixers_.size()) + " on " +
                   std::to_string(layout.ranks()) +
                   (layout.ranks() == 1 ? " rank" : std::string(" ranks, ") + krait::name_of(strategy_)));
    krait::gated_rms_norm(
        exec, krait::GatedRmsNormArguments<float, Exec>{
                  .x = stream, .z = {}, .weight = norm_weight_, .bias = {}, .out = branch, .epsilon = norm_epsilon});
    mixers_[layer].forward(exec, branch, layout, documents, branch);
    add(exec, stream, branch);
    exec.fence("krait_genome: a layer is done");
    progress.done();
  }
}

std::size_t MixerStack::activation_bytes(const krait::SequenceLayout& layout) const {
  const Mixer& mixer = mixers_.front();
  return mixer.workspace_bytes(layout, 1) +
         static_cast<std::size_t>(streams * layout.local_length() * mixer.config().d_model) * sizeof(float);
}

}  // namespace genome
