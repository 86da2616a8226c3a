// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/mixer/mamba_gradients.hpp>

#include <krait/comm/reductions.hpp>
#include <krait/core/instantiate.hpp>

namespace krait {
namespace {

template <class A, class Exec>
struct Scale {
  Kokkos::View<A*, typename Exec::memory_space> values;
  A factor;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const { values(i) *= factor; }
};

template <class A, class Exec>
struct Zero {
  Kokkos::View<A*, typename Exec::memory_space> values;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const { values(i) = 0; }
};

template <class Exec>
auto every(const Exec& exec, std::int64_t count) {
  return Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>(exec, 0, count);
}

/// Hands out the array from front to back; first only counts, as long as there is none.
template <class A>
class Shares {
 public:
  explicit Shares(A* data) : data_(data) {}

  template <class Array, class... Extents>
  void take(Array& array, bool wanted, Extents... extents) {
    if (!wanted) return;
    if (data_ != nullptr) array = Array(data_ + count_, static_cast<std::size_t>(extents)...);
    count_ += (extents * ...);
  }
  [[nodiscard]] std::int64_t count() const { return count_; }

 private:
  A* data_;
  std::int64_t count_ = 0;
};

}  // namespace

template <Scalar T, class Exec>
MambaGradients<T, Exec>::MambaGradients(const Exec& exec, const MambaConfig& config, Place tensor) {
  config.validate(tensor.size);
  const auto local = config.sequence_operator(tensor.size, Divisibility::uneven);
  const std::int64_t inner = local.d_inner();
  const std::int64_t width = inner + local.input_width();
  const auto share_out = [&](A* data) {
    Shares<A> shares(data);
    shares.take(in_proj_weight, true, width, config.d_model);
    shares.take(in_proj_bias, config.bias, width);
    shares.take(conv_weight, true, local.conv_channels(), local.d_conv);
    shares.take(conv_bias, config.conv_bias, local.conv_channels());
    shares.take(dt_bias, true, local.heads);
    shares.take(A_log, true, local.heads);
    shares.take(D, !config.D_has_hdim, local.heads);
    shares.take(D_per_channel, config.D_has_hdim, local.heads, local.head_dim);
    shares.take(norm_weight, config.rmsnorm, inner);
    shares.take(out_proj_weight, true, config.d_model, inner);
    shares.take(out_proj_bias, config.bias, config.d_model);
    return shares.count();
  };
  const auto count = static_cast<std::size_t>(share_out(nullptr));
  flat_ = Kokkos::View<A*, Memory>(Kokkos::view_alloc(exec, Kokkos::WithoutInitializing, "krait::gradients"), count);
  share_out(flat_.data());
  zero(exec, *this);
}

template <Scalar T, class Exec>
void zero(const Exec& exec, const MambaGradients<T, Exec>& gradients) {
  Kokkos::parallel_for("krait::zero", every(exec, gradients.count()), Zero<accumulator_t<T>, Exec>{gradients.flat()});
}

template <Scalar T, class Exec>
void reduce_gradients(const Exec& exec, const Communicator& context, const MambaGradients<T, Exec>& gradients,
                      double scale) {
  using A = accumulator_t<T>;
  const Kokkos::Profiling::ScopedRegion region("krait::reduce_gradients");
  if (context.size() > 1)
    comm::all_reduce(exec, context, gradients.flat(), gradients.flat(), Reduction::sum).wait_on(exec);
  if (scale == 1) return;
  Kokkos::parallel_for("krait::reduce_gradients::scale", every(exec, gradients.count()),
                       Scale<A, Exec>{gradients.flat(), static_cast<A>(scale)});
}

#define KRAIT_INSTANTIATE(T, EXEC)                                          \
  template class MambaGradients<T, EXEC>;                                   \
  template void zero<T, EXEC>(const EXEC&, const MambaGradients<T, EXEC>&); \
  template void reduce_gradients<T, EXEC>(const EXEC&, const Communicator&, const MambaGradients<T, EXEC>&, double);
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait
