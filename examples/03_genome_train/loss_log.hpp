// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <fstream>
#include <string>

namespace genome::train {

/// One step of training: its loss and gradient norm are those before its update.
struct Step {
  std::int64_t number = 0;  ///< from 1
  double bits_per_base = 0;
  double learning_rate = 0;
  double gradient_norm = 0;
  double tokens_per_second = 0;
};

/// A CSV file with a line per step, each written as soon as it is known.
class LossLog {
 public:
  /// \param done  steps of an interrupted run that is being continued: their lines stay, later ones go
  /// \throws krait::FileError when the file cannot be written, or is something else than such a log
  LossLog(const std::string& path, std::int64_t done);

  /// \throws krait::FileError when the file cannot be written
  void add(const Step& step);

 private:
  std::string path_;
  std::ofstream file_;
};

}  // namespace genome::train
