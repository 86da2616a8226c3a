// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/local.hpp>

#include <krait/core/instantiate.hpp>
#include <krait/parallel/operator_checks.hpp>

namespace krait {

template <Scalar T, class Exec>
OperatorRoom Local<T, Exec>::room(const Communicator&, const SequenceLayout&, std::int64_t) const {
  return {};
}

template <Scalar T, class Exec>
std::size_t Local<T, Exec>::workspace_bytes(const Communicator&, const SequenceLayout& layout, std::int64_t batch,
                                            bool) const {
  return static_cast<std::size_t>(batch * layout.length() * config_.conv_channels()) * sizeof(T);
}

template <Scalar T, class Exec>
void Local<T, Exec>::forward(const Exec& exec, const Communicator& context, const SequenceLayout& layout,
                             const DocumentMap& documents, const SequenceOperatorParameters<T, Exec>& parameters,
                             const SequenceOperatorArguments<T, Exec>& arguments) {
  const Kokkos::Profiling::ScopedRegion region("krait::Local::forward");
  const std::string function = "krait::Local::forward";
  KRAIT_REQUIRE(ConfigError, context.size() == 1, function, ": the communicator has ", context.size(),
                " ranks, expected 1");
  const std::int64_t batch = documents.rows();
  impl::check_operator_call(function, config_, context, layout, documents, parameters, arguments,
                            workspace_bytes(context, layout, batch, arguments.overwrites_input()),
                            room(context, layout, batch));
  if (!slot_.holds(layout, batch)) {
    const HeadPartition partition(context.place(), {config_.heads, config_.head_dim, config_.groups, config_.d_state},
                                  config_.divisibility);
    slot_.set(layout, batch,
              std::make_unique<impl::WholeSequence<T, Exec>>(exec, config_, partition, batch, layout.length()));
  }
  Tensor<const std::int64_t*, Exec> map;
  if (!layout.is_identity()) map = layout.template index_map<typename Exec::memory_space>();
  slot_.plan().run(exec, parameters, arguments.xBCdt, map, reinterpret_cast<T*>(arguments.workspace.data()),
                   arguments.y, documents.runs());
}

#define KRAIT_INSTANTIATE(T, EXEC) template class Local<T, EXEC>;
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait
