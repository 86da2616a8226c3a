// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <krait/comm/communicator.hpp>
#include <krait/layout/document_map.hpp>
#include <krait/layout/sequence_layout.hpp>
#include <krait/parallel/sequence_operator.hpp>

namespace krait::impl {

/// Something that must be the same on every rank, with its name for the message.
struct SharedValue {
  const char* name;
  std::int64_t value;
};

/// Runs `check` on every rank of the group and lets all of them throw when one does: the error of the lowest rank that
/// failed, with the same type and text everywhere. Also throws LayoutError when `shared`, values that must be the same
/// on every rank (batch rows, lengths), are not. Collective; meant for the first call with new shapes, never for a
/// steady state.
///
/// \param function  name for the message, e.g. "krait::MambaMixer::forward"
/// \param shared    their values are read after `check`
void agree(const Communicator& group, const char* function, const std::vector<SharedValue>& shared,
           const std::function<void()>& check);

/// A number that differs (with all but certainty) when any rank's tokens, any document, or what messages and numbers of
/// an operator depend on, differ. Ranks may ask for blocks of heads in different ways: those are compared by
/// themselves.
std::int64_t fingerprint(const SequenceLayout& layout);
std::int64_t fingerprint(const DocumentMap& documents);
std::int64_t fingerprint(const SequenceOperatorConfig& config);

/// True when both have the same documents in the same order.
bool same_documents(const DocumentMap& a, const DocumentMap& b);

/// The checks of a call that takes a layout and documents: agreed on by all ranks when either is new to the group and
/// the function, by each rank alone in a steady state, where the group has agreed on the same ones the last time. A
/// function's first call is not covered by another one's, which has other arguments. What counts as new is a matter of
/// contents, and is remembered for each group by itself: all ranks of a group must come to the same conclusion, also
/// those that have made other calls in other groups meanwhile.
class AgreedCall {
 public:
  AgreedCall() = default;
  /// Calls of an operator that must be the same on every rank, with the same configuration.
  AgreedCall(Strategy strategy, const SequenceOperatorConfig& config)
      : strategy_(static_cast<std::int64_t>(strategy)), configuration_(fingerprint(config)) {}

  /// \param more  what else must be the same on every rank, read after `check`; may be null
  /// \throws LayoutError on every rank when ranks come with different strategies, configurations, layouts or documents;
  ///         what `check` throws
  void operator()(const Communicator& group, const char* function, const SequenceLayout& layout,
                  const DocumentMap& documents, const std::function<void()>& check, const SharedValue* more = nullptr);

 private:
  struct Agreed {
    std::weak_ptr<CommState> group;
    std::string function;
    SequenceLayout layout;
    DocumentMap documents;
  };
  std::int64_t strategy_ = 0;
  std::int64_t configuration_ = 0;
  std::vector<Agreed> agreed_;
};

}  // namespace krait::impl
