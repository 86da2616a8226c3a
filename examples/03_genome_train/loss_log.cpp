// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "loss_log.hpp"

#include <cerrno>
#include <charconv>
#include <filesystem>
#include <iomanip>
#include <krait/core/error.hpp>
#include <limits>
#include <system_error>
#include <vector>

namespace genome::train {
namespace {

constexpr const char* header = "step,bits_per_base,learning_rate,grad_norm,tokens_per_second";

[[noreturn]] void fail(const std::string& path, const std::string& what) {
  throw krait::FileError("cannot write '" + path + "': " + what);
}

/// The lines of steps up to `done`; none when there is no file.
std::vector<std::string> lines_up_to(const std::string& path, std::int64_t done) {
  std::vector<std::string> lines;
  std::ifstream file(path);
  std::string line;
  if (!file || !std::getline(file, line)) return lines;
  if (line != header) fail(path, "it exists and is no loss log; --csv names another file");
  while (std::getline(file, line)) {
    std::int64_t step = 0;
    std::from_chars(line.data(), line.data() + line.size(), step);
    if (step >= 1 && step <= done) lines.push_back(line);
  }
  return lines;
}

}  // namespace

LossLog::LossLog(const std::string& path, std::int64_t done) : path_(path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) fail(path, "it is a directory");
  const std::vector<std::string> before = lines_up_to(path, done);
  errno = 0;
  file_.open(path);
  if (!file_) fail(path, errno != 0 ? std::generic_category().message(errno) : "it cannot be opened");
  file_ << header << '\n';
  for (const std::string& line : before) file_ << line << '\n';
  file_.flush();
}

void LossLog::add(const Step& step) {
  constexpr int digits = std::numeric_limits<double>::max_digits10;
  errno = 0;
  file_ << step.number << ',' << std::setprecision(digits) << step.bits_per_base << ',' << std::setprecision(9)
        << step.learning_rate << ',' << step.gradient_norm << ',' << std::setprecision(6) << step.tokens_per_second
        << std::endl;
  if (!file_) fail(path_, errno != 0 ? std::generic_category().message(errno) : "the write failed");
}

}  // namespace genome::train
