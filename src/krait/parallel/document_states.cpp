// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/document_states.hpp>

#include <krait/core/device_table.hpp>
#include <krait/core/instantiate.hpp>
#include <krait/core/row_loop.hpp>

namespace krait::impl {
namespace {

template <class Exec>
using Range = Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>;

template <class Exec>
using Parts = Kokkos::View<const DocumentPart*, typename Exec::memory_space>;

template <class Exec, class View>
Range<Exec> elements(const Exec& exec, const View& view) {
  return Range<Exec>(exec, 0, static_cast<std::int64_t>(view.size()));
}

/// An element of states of the convolution; channels lie side by side, see conv_states() in state_passing.cpp.
struct ConvIndex {
  std::int64_t state, channel, tap;
  template <class View>
  KOKKOS_FUNCTION ConvIndex(std::int64_t i, const View& states) {
    const auto channels = static_cast<std::int64_t>(states.extent(1));
    const auto taps = static_cast<std::int64_t>(states.extent(2));
    channel = i % channels;
    tap = i / channels % taps;
    state = i / channels / taps;
  }
};

/// A row of states of the scan: d_state elements.
struct ScanRow {
  std::int64_t state, head, p;
  template <class View>
  KOKKOS_FUNCTION ScanRow(std::int64_t row, const View& states) {
    const auto head_dim = static_cast<std::int64_t>(states.extent(2));
    const auto heads = static_cast<std::int64_t>(states.extent(1));
    p = row % head_dim;
    head = row / head_dim % heads;
    state = row / head_dim / heads;
  }
};

/// body(row, n) for all rows of states of the scan.
template <class Exec, class View, class Body>
void for_scan_rows(const char* label, const Exec& exec, const View& states, const Body& body) {
  for_rows(label, exec, static_cast<std::int64_t>(states.extent(0) * states.extent(1) * states.extent(2)),
           static_cast<std::int64_t>(states.extent(3)), body);
}

/// With `before` tokens of the document before a piece, tap k of the piece's state is tap k + before of the document's.
template <Scalar T, class Exec>
struct TakeInitialConv {
  Parts<Exec> parts;
  Tensor<const T***, Exec> documents;
  Tensor<T***, Exec> pieces;
  bool given;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    const ConvIndex at(i, pieces);
    const DocumentPart part = parts(at.state);
    const std::int64_t tap = at.tap + part.before;
    const bool initial = given && part.document >= 0 && tap < static_cast<std::int64_t>(pieces.extent(2));
    pieces(at.state, at.channel, at.tap) = initial ? documents(part.document, at.channel, tap) : T(0);
  }
};

template <Scalar T, class Exec>
struct PutFinalConv {
  Parts<Exec> parts;
  Tensor<const T***, Exec> pieces;
  Tensor<T***, Exec> documents;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    const ConvIndex at(i, pieces);
    const DocumentPart part = parts(at.state);
    if (part.ends()) documents(part.document, at.channel, at.tap) = pieces(at.state, at.channel, at.tap);
  }
};

/// With `behind` tokens of the document behind a piece, tap k behind the piece is tap k - behind of the document's
/// final state. The last `tokens` taps are inputs of the piece.
template <class A, class Exec>
struct TakeFinalConvGradients {
  Parts<Exec> parts;
  Tensor<const A***, Exec> documents;
  Tensor<A***, Exec> pieces;
  bool given;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    const ConvIndex at(i, pieces);
    const DocumentPart part = parts(at.state);
    const std::int64_t tap = at.tap - part.behind;
    const bool own = at.tap >= static_cast<std::int64_t>(pieces.extent(2)) - part.tokens;
    const bool taken = given && part.document >= 0 && tap >= 0 && (own || part.begins());
    pieces(at.state, at.channel, at.tap) = taken ? documents(part.document, at.channel, tap) : A(0);
  }
};

/// One channel and tap of all documents: several pieces may add to the same one, in the order of their states.
template <class A, class Exec>
struct PutInitialConvGradients {
  Parts<Exec> parts;
  Tensor<const A***, Exec> pieces;
  Tensor<A***, Exec> documents;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    const auto channels = static_cast<std::int64_t>(documents.extent(1));
    const std::int64_t channel = i % channels;
    const std::int64_t tap = i / channels;
    for (std::size_t state = 0; state < parts.extent(0); ++state) {
      const DocumentPart part = parts(state);
      if (part.document >= 0 && part.before <= tap)
        documents(part.document, channel, tap) += pieces(state, channel, tap - part.before);
    }
  }
};

enum class DocumentEnd { begin, end };

KOKKOS_INLINE_FUNCTION bool has_end(const DocumentPart& part, DocumentEnd end) {
  return end == DocumentEnd::begin ? part.begins() : part.ends();
}

template <class A, class Exec>
struct TakeScanStates {
  Parts<Exec> parts;
  DocumentEnd end;
  Tensor<const A****, Exec> documents;
  Tensor<A****, Exec> pieces;
  KOKKOS_FUNCTION void operator()(std::int64_t row, std::int64_t n) const {
    const ScanRow at(row, pieces);
    const DocumentPart part = parts(at.state);
    pieces(at.state, at.head, at.p, n) = has_end(part, end) ? documents(part.document, at.head, at.p, n) : A(0);
  }
};

template <class A, class Exec>
struct PutScanStates {
  Parts<Exec> parts;
  DocumentEnd end;
  Tensor<const A****, Exec> pieces;
  Tensor<A****, Exec> documents;
  KOKKOS_FUNCTION void operator()(std::int64_t row, std::int64_t n) const {
    const ScanRow at(row, pieces);
    const DocumentPart part = parts(at.state);
    if (has_end(part, end)) documents(part.document, at.head, at.p, n) = pieces(at.state, at.head, at.p, n);
  }
};

/// What no document gives is zero.
template <class A, class Exec>
void take_scan_states(const char* label, const Exec& exec, const Parts<Exec>& parts, DocumentEnd end,
                      const Tensor<const A****, Exec>& documents, const Tensor<A****, Exec>& pieces) {
  if (is_absent(documents)) {
    Kokkos::deep_copy(exec, pieces, A(0));
  } else {
    for_scan_rows(label, exec, pieces, TakeScanStates<A, Exec>{parts, end, documents, pieces});
  }
}

}  // namespace

template <Scalar T, class Exec>
DocumentStates<T, Exec>::DocumentStates(const std::vector<DocumentPart>& parts)
    : parts_(upload_table<typename Exec::memory_space>("krait::DocumentStates::parts", parts)) {}

template <Scalar T, class Exec>
void DocumentStates<T, Exec>::take_initial(const Exec& exec, const Tensor<const T***, Exec>& documents,
                                           const Tensor<T***, Exec>& pieces) const {
  Kokkos::parallel_for("krait::DocumentStates::take_initial_conv", elements(exec, pieces),
                       TakeInitialConv<T, Exec>{parts_, documents, pieces, !is_absent(documents)});
}

template <Scalar T, class Exec>
void DocumentStates<T, Exec>::put_final(const Exec& exec, const Tensor<const T***, Exec>& pieces,
                                        const Tensor<T***, Exec>& documents) const {
  if (is_absent(documents)) return;
  Kokkos::deep_copy(exec, documents, T(0));
  Kokkos::parallel_for("krait::DocumentStates::put_final_conv", elements(exec, pieces),
                       PutFinalConv<T, Exec>{parts_, pieces, documents});
}

template <Scalar T, class Exec>
void DocumentStates<T, Exec>::take_final_gradients(const Exec& exec, const Tensor<const A***, Exec>& documents,
                                                   const Tensor<A***, Exec>& pieces) const {
  Kokkos::parallel_for("krait::DocumentStates::take_final_conv_gradients", elements(exec, pieces),
                       TakeFinalConvGradients<A, Exec>{parts_, documents, pieces, !is_absent(documents)});
}

template <Scalar T, class Exec>
void DocumentStates<T, Exec>::put_initial_gradients(const Exec& exec, const Tensor<const A***, Exec>& pieces,
                                                    const Tensor<A***, Exec>& documents) const {
  if (is_absent(documents)) return;
  Kokkos::deep_copy(exec, documents, A(0));
  const auto columns = static_cast<std::int64_t>(documents.extent(1) * documents.extent(2));
  Kokkos::parallel_for("krait::DocumentStates::put_initial_conv_gradients", Range<Exec>(exec, 0, columns),
                       PutInitialConvGradients<A, Exec>{parts_, pieces, documents});
}

template <Scalar T, class Exec>
void DocumentStates<T, Exec>::take_initial(const Exec& exec, const Tensor<const A****, Exec>& documents,
                                           const Tensor<A****, Exec>& pieces) const {
  take_scan_states("krait::DocumentStates::take_initial", exec, parts_, DocumentEnd::begin, documents, pieces);
}

template <Scalar T, class Exec>
void DocumentStates<T, Exec>::put_final(const Exec& exec, const Tensor<const A****, Exec>& pieces,
                                        const Tensor<A****, Exec>& documents) const {
  if (is_absent(documents)) return;
  Kokkos::deep_copy(exec, documents, A(0));
  for_scan_rows("krait::DocumentStates::put_final", exec, pieces,
                PutScanStates<A, Exec>{parts_, DocumentEnd::end, pieces, documents});
}

template <Scalar T, class Exec>
void DocumentStates<T, Exec>::take_final_gradients(const Exec& exec, const Tensor<const A****, Exec>& documents,
                                                   const Tensor<A****, Exec>& pieces) const {
  take_scan_states("krait::DocumentStates::take_final_gradients", exec, parts_, DocumentEnd::end, documents, pieces);
}

template <Scalar T, class Exec>
void DocumentStates<T, Exec>::put_initial_gradients(const Exec& exec, const Tensor<const A****, Exec>& pieces,
                                                    const Tensor<A****, Exec>& documents) const {
  if (is_absent(documents)) return;
  Kokkos::deep_copy(exec, documents, A(0));
  for_scan_rows("krait::DocumentStates::put_initial_gradients", exec, pieces,
                PutScanStates<A, Exec>{parts_, DocumentEnd::begin, pieces, documents});
}

#define KRAIT_INSTANTIATE(T, EXEC) template class DocumentStates<T, EXEC>;
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait::impl
