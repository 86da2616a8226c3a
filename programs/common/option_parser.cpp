// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "common/option_parser.hpp"

#include <algorithm>
#include <charconv>
#include <sstream>
#include <system_error>

namespace command_line {
namespace {

/// False unless all of `text` is a number of this type.
template <class Number>
bool read(const std::string& text, Number& value) {
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  return code == std::errc{} && end == text.data() + text.size();
}

template <class Integer>
OptionParser::Setter whole_number(Integer& target, Integer least, Integer most) {
  return [=, &target](const std::string& name, const std::string& text) {
    Integer value{};
    if (!read(text, value) || value < least) {
      throw krait::ConfigError(name + " takes a whole number of at least " + std::to_string(least) + ", got '" + text +
                               "'");
    }
    if (value > most) {
      throw krait::ConfigError(name + " takes a whole number of at most " + std::to_string(most) + ", got '" + text +
                               "'");
    }
    target = value;
  };
}

}  // namespace

void OptionParser::parse(int argc, const char* const* argv) const {
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const auto flag = flags_.find(argument);
    if (flag != flags_.end()) {
      flag->second();
      continue;
    }
    const std::size_t equals = argument.find('=');
    const std::string name = argument.substr(0, equals);
    const auto setter = setters_.find(name);
    if (setter == setters_.end()) {
      throw krait::ConfigError("unknown option '" + argument + "'; --help lists the options");
    }
    if (equals == std::string::npos && i + 1 == argc) throw krait::ConfigError(name + " needs a value");
    setter->second(name, equals == std::string::npos ? argv[++i] : argument.substr(equals + 1));
  }
}

std::vector<std::string> OptionParser::names() const {
  std::map<std::string, bool> sorted;
  for (const auto& [name, setter] : setters_) sorted[name];
  for (const auto& [name, set] : flags_) sorted[name];
  std::vector<std::string> result;
  for (const auto& [name, unused] : sorted) result.push_back(name);
  return result;
}

OptionParser::Setter number(std::int64_t& target, std::int64_t least, std::int64_t most) {
  return whole_number(target, least, most);
}

OptionParser::Setter number(std::uint64_t& target) {
  return whole_number(target, std::uint64_t{0}, std::numeric_limits<std::uint64_t>::max());
}

OptionParser::Setter numbers(std::vector<std::int64_t>& target, std::int64_t least, std::int64_t most) {
  return [=, &target](const std::string& name, const std::string& text) {
    target.clear();
    std::size_t begin = 0;
    while (begin <= text.size()) {
      const std::size_t end = std::min(text.find(',', begin), text.size());
      std::int64_t value = 0;
      number(value, least, most)(name, text.substr(begin, end - begin));
      target.push_back(value);
      begin = end + 1;
    }
  };
}

OptionParser::Setter real(double& target, double least, double most, bool least_too) {
  return [=, &target](const std::string& name, const std::string& text) {
    double value = 0;
    if (!read(text, value) || !(value > least || (least_too && value == least)) || !(value <= most)) {
      std::ostringstream message;
      message << name << " takes a number " << (least_too ? "of at least " : "above ") << least << " and at most "
              << most << ", got '" << text << "'";
      throw krait::ConfigError(message.str());
    }
    target = value;
  };
}

OptionParser::Setter path(std::string& target) {
  return [&target](const std::string& name, const std::string& text) {
    if (text.empty()) throw krait::ConfigError(name + " takes the path of a file, got ''");
    target = text;
  };
}

}  // namespace command_line
