// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "krait_plan/machine_file.hpp"

#include <cctype>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <krait/core/error.hpp>
#include <limits>
#include <ostream>
#include <sstream>

namespace plan {
namespace {

/// Reads { "name": number, ... } and nothing else of JSON.
class Reader {
 public:
  Reader(std::string path, std::string text) : path_(std::move(path)), text_(std::move(text)) {}

  void read(krait::Machine& machine) {
    expect('{');
    while (!take('}')) {
      expect('"');
      const std::size_t end = std::min(text_.find('"', at_), text_.size());
      const std::string name = text_.substr(at_, end - at_);
      at_ = end;
      expect('"');
      expect(':');
      machine.*member(name) = number(name);
      if (take('}')) break;
      expect(',');
    }
    skip_space();
    if (at_ != text_.size()) fail("something follows the object");
  }

 private:
  void skip_space() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_])) != 0) ++at_;
  }
  bool take(char wanted) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }
  void expect(char wanted) {
    if (!take(wanted)) fail(std::string("expected ") + wanted + " at character " + std::to_string(at_ + 1));
  }
  [[nodiscard]] auto member(const std::string& name) const -> double krait::Machine::* {
    for (const auto& [known, member] : krait::Machine::members())
      if (known == name) return member;
    fail("a machine has no '" + name + "'");
  }
  double number(const std::string& name) {
    skip_space();
    std::istringstream rest(text_.substr(at_, 64));
    rest.imbue(std::locale::classic());
    double value = 0;
    if (!(rest >> value)) fail(name + " is no number");
    at_ = rest.eof() ? text_.size() : at_ + static_cast<std::size_t>(rest.tellg());
    return value;
  }
  [[noreturn]] void fail(const std::string& what) const { throw krait::ConfigError(path_ + ": " + what); }

  std::string path_;
  std::string text_;
  std::size_t at_ = 0;
};

}  // namespace

void write_machine(std::ostream& stream, const krait::Machine& machine) {
  std::ostringstream text;
  text.imbue(std::locale::classic());
  text.precision(std::numeric_limits<double>::max_digits10);
  const char* separator = "{\n";
  for (const auto& [name, member] : krait::Machine::members()) {
    text << separator << "  \"" << name << "\": " << machine.*member;
    separator = ",\n";
  }
  stream << text.str() << "\n}\n";
}

krait::Machine read_machine(const std::string& path, const krait::Machine& defaults) {
  std::ifstream file(path);
  if (!file || std::filesystem::is_directory(path)) throw krait::ConfigError(path + " cannot be read");
  krait::Machine machine = defaults;
  Reader(path, {std::istreambuf_iterator<char>(file), {}}).read(machine);
  try {
    machine.validate();
  } catch (const krait::ConfigError& error) {
    throw krait::ConfigError(path + ": " + error.what());
  }
  return machine;
}

}  // namespace plan
