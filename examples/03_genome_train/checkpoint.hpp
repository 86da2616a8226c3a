// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "model_config.hpp"

namespace genome::train {

/// All that a training run needs in order to go on as if it had not stopped.
struct Checkpoint {
  ModelConfig model;
  std::int64_t steps = 0;  ///< done
  double first_loss = 0;   ///< of the very first step, in bits per base
  std::vector<float> parameters;
  std::vector<float> first_moment;
  std::vector<float> second_moment;

  friend bool operator==(const Checkpoint&, const Checkpoint&) = default;
};

/// The bytes of a checkpoint file, all numbers little-endian:
///
///     "KRAITGEN" | version u64 | layers, d_model, d_state, steps, count i64 | first loss f64
///     | parameters, first moment, second moment, count f32 each | FNV-1a hash of all that precedes u64
std::vector<std::byte> encode(const Checkpoint& checkpoint);

/// \param path  for messages
/// \throws krait::FileError that says what is wrong with the bytes
Checkpoint decode(const std::vector<std::byte>& bytes, const std::string& path);

/// \throws krait::FileError when the file cannot be read
std::vector<std::byte> read_file(const std::string& path);

/// Writes under a temporary name beside `path` and renames, so that `path` always holds a whole file.
/// \throws krait::FileError when the file cannot be written
void write_file(const std::string& path, const std::vector<std::byte>& bytes);

/// Finds out before the work whether write_file() can work afterwards.
/// \throws krait::FileError
void require_writable(const std::string& path);

/// \throws krait::ConfigError when the checkpoint is of another model
void require_model(const Checkpoint& checkpoint, const ModelConfig& model, const std::string& path);

/// FNV-1a.
std::uint64_t hash(const std::byte* bytes, std::size_t count);

}  // namespace genome::train
