// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include <krait/core/error.hpp>

namespace command_line {

/// Reads a command line of `--name value` (or `--name=value`) options and of flags.
class OptionParser {
 public:
  /// Takes the text behind an option; `name` is for messages.
  using Setter = std::function<void(const std::string& name, const std::string& text)>;

  void add(const std::string& name, Setter setter) { setters_[name] = std::move(setter); }
  void add_flag(const std::string& name, std::function<void()> set) { flags_[name] = std::move(set); }

  /// \throws krait::ConfigError that names the option, what was given and what it takes
  void parse(int argc, const char* const* argv) const;

  /// Names of all options and flags, in alphabetical order.
  [[nodiscard]] std::vector<std::string> names() const;

 private:
  std::map<std::string, Setter> setters_;
  std::map<std::string, std::function<void()>> flags_;
};

/// \name What an option may take. The target must outlive the parser.
/// \{

/// A whole number in [least, most].
OptionParser::Setter number(std::int64_t& target, std::int64_t least,
                            std::int64_t most = std::numeric_limits<std::int64_t>::max());
OptionParser::Setter number(std::uint64_t& target);

/// A number in (least, most], or in [least, most] when `least_too`.
OptionParser::Setter real(double& target, double least, double most, bool least_too = false);

/// Whole numbers in [least, most] between commas, at least one.
OptionParser::Setter numbers(std::vector<std::int64_t>& target, std::int64_t least, std::int64_t most);

/// The path of a file.
OptionParser::Setter path(std::string& target);

/// One of a few words.
template <class Choice>
OptionParser::Setter choice(Choice& target, const std::map<std::string, Choice>& choices) {
  return [&target, choices](const std::string& name, const std::string& text) {
    const auto found = choices.find(text);
    if (found != choices.end()) {
      target = found->second;
      return;
    }
    std::string expected;
    for (const auto& [known, value] : choices) expected += (expected.empty() ? "" : ", ") + known;
    throw krait::ConfigError(name + " takes one of " + expected + ", got '" + text + "'");
  };
}
/// \}

}  // namespace command_line
