// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstddef>
#include <optional>
#include <utility>

#include <krait/core/scalars.hpp>
#include <krait/core/workspace.hpp>
#include <krait/layout/document_map.hpp>
#include <krait/layout/sequence_layout.hpp>

namespace krait {

template <Scalar T, class Exec>
class MambaMixer;

namespace impl {

/// Where the parts of MambaActivations lie, in bytes. Equal for calls of equal shape.
struct ActivationBlocks {
  std::size_t projection = 0;  ///< (b, l, projection_width): z | x | B | C | dt
  std::size_t y = 0;           ///< (b, l, d_inner), before gate and norm
  std::size_t rstd = 0;        ///< (b, l, groups), with rmsnorm
  std::size_t saved = 0;       ///< the operator's own
  std::size_t saved_bytes = 0;
  std::size_t bytes = 0;

  friend bool operator==(const ActivationBlocks&, const ActivationBlocks&) = default;
};

}  // namespace impl

/// What one forward call of one mixer keeps for its backward; filled by MambaMixer::forward(), read by
/// MambaMixer::backward(), any number of times until the next forward fills it again. Owns its memory, which grows when
/// a call needs more and is otherwise kept. Empty at first, after it has been moved from, and after a forward that
/// threw. Move-only. It must end before Kokkos::finalize.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
class MambaActivations {
 public:
  MambaActivations() = default;
  MambaActivations(const MambaActivations&) = delete;
  MambaActivations& operator=(const MambaActivations&) = delete;
  MambaActivations(MambaActivations&& other) noexcept
      : memory_(std::move(other.memory_)), call_(std::exchange(other.call_, std::nullopt)) {}
  MambaActivations& operator=(MambaActivations&& other) noexcept {
    memory_ = std::move(other.memory_);
    call_ = std::exchange(other.call_, std::nullopt);
    return *this;
  }
  ~MambaActivations() = default;

  /// Bytes of memory it holds: MambaMixer::saved_bytes() of the largest call so far.
  [[nodiscard]] std::size_t bytes() const { return memory_.bytes(); }
  /// True when a forward has filled it.
  [[nodiscard]] bool filled() const { return call_.has_value(); }

 private:
  friend class MambaMixer<T, Exec>;

  struct Call {
    SequenceLayout layout;
    DocumentMap documents;
    impl::ActivationBlocks blocks;
    const void* weights;  ///< of the mixer that was called, by which it is known again
  };
  Workspace<Exec> memory_{"krait::MambaActivations"};
  std::optional<Call> call_;
};

}  // namespace krait
