// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "checkpoint.hpp"

#include <array>
#include <bit>
#include <cerrno>
#include <concepts>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <krait/core/error.hpp>
#include <string_view>
#include <system_error>

namespace genome::train {
namespace {

constexpr std::string_view magic = "KRAITGEN";
constexpr std::uint64_t version = 1;
constexpr std::size_t header_bytes = magic.size() + 7 * sizeof(std::uint64_t);
constexpr std::size_t hash_bytes = sizeof(std::uint64_t);
constexpr std::size_t arrays = 3;

std::string system_text() {
  return errno != 0 ? std::generic_category().message(errno) : "the system does not say why";
}

[[noreturn]] void fail_reading(const std::string& path, const std::string& what) {
  throw krait::FileError("cannot read the checkpoint '" + path + "': " + what);
}

[[noreturn]] void fail_writing(const std::string& path, const std::string& what) {
  throw krait::FileError("cannot write '" + path + "': " + what);
}

template <std::unsigned_integral Bits>
void append_bits(std::vector<std::byte>& bytes, Bits bits) {
  for (std::size_t i = 0; i < sizeof(Bits); ++i) bytes.push_back(static_cast<std::byte>(bits >> 8 * i & 0xffU));
}

template <std::unsigned_integral Bits>
Bits take_bits(const std::byte*& bytes) {
  Bits bits = 0;
  for (std::size_t i = 0; i < sizeof(Bits); ++i) bits |= static_cast<Bits>(*bytes++) << 8 * i;
  return bits;
}

void append(std::vector<std::byte>& bytes, std::int64_t value) {
  append_bits(bytes, static_cast<std::uint64_t>(value));
}

void append(std::vector<std::byte>& bytes, const std::vector<float>& values) {
  for (const float value : values) append_bits(bytes, std::bit_cast<std::uint32_t>(value));
}

std::int64_t take_number(const std::byte*& bytes) { return static_cast<std::int64_t>(take_bits<std::uint64_t>(bytes)); }

std::vector<float> take_floats(const std::byte*& bytes, std::size_t count) {
  std::vector<float> values(count);
  for (float& value : values) value = std::bit_cast<float>(take_bits<std::uint32_t>(bytes));
  return values;
}

std::string temporary(const std::string& path) { return path + ".part"; }

}  // namespace

std::uint64_t hash(const std::byte* bytes, std::size_t count) {
  std::uint64_t result = 0xcbf29ce484222325ULL;
  for (std::size_t i = 0; i < count; ++i) {
    result ^= static_cast<std::uint64_t>(bytes[i]);
    result *= 0x100000001b3ULL;
  }
  return result;
}

std::vector<std::byte> encode(const Checkpoint& checkpoint) {
  std::vector<std::byte> bytes;
  bytes.reserve(header_bytes + arrays * checkpoint.parameters.size() * sizeof(float) + hash_bytes);
  for (const char letter : magic) bytes.push_back(static_cast<std::byte>(letter));
  append_bits(bytes, version);
  append(bytes, checkpoint.model.layers);
  append(bytes, checkpoint.model.d_model);
  append(bytes, checkpoint.model.d_state);
  append(bytes, checkpoint.steps);
  append(bytes, static_cast<std::int64_t>(checkpoint.parameters.size()));
  append_bits(bytes, std::bit_cast<std::uint64_t>(checkpoint.first_loss));
  append(bytes, checkpoint.parameters);
  append(bytes, checkpoint.first_moment);
  append(bytes, checkpoint.second_moment);
  append_bits(bytes, hash(bytes.data(), bytes.size()));
  return bytes;
}

Checkpoint decode(const std::vector<std::byte>& bytes, const std::string& path) {
  const std::size_t compared = std::min(magic.size(), bytes.size());
  if (bytes.empty()) fail_reading(path, "the file is empty");
  if (std::memcmp(bytes.data(), magic.data(), compared) != 0) {
    fail_reading(path,
                 "it does not begin with " + std::string(magic) + ", so it is no checkpoint of krait_genome_train");
  }
  if (bytes.size() < header_bytes) {
    fail_reading(path, "the file is truncated: " + std::to_string(bytes.size()) + " bytes, the header alone has " +
                           std::to_string(header_bytes));
  }
  const std::byte* place = bytes.data() + magic.size();
  const auto found = take_bits<std::uint64_t>(place);
  if (found != version) {
    fail_reading(path,
                 "its version is " + std::to_string(found) + ", this program reads version " + std::to_string(version));
  }
  Checkpoint checkpoint;
  checkpoint.model.layers = take_number(place);
  checkpoint.model.d_model = take_number(place);
  checkpoint.model.d_state = take_number(place);
  checkpoint.steps = take_number(place);
  const auto count = take_bits<std::uint64_t>(place);
  checkpoint.first_loss = std::bit_cast<double>(take_bits<std::uint64_t>(place));

  const std::size_t room = bytes.size() - header_bytes;
  if (count > room / (arrays * sizeof(float)) || room < arrays * count * sizeof(float) + hash_bytes) {
    fail_reading(path, "the file is truncated: " + std::to_string(bytes.size()) + " bytes cannot hold " +
                           std::to_string(count) + " parameters and their moments");
  }
  if (room != arrays * count * sizeof(float) + hash_bytes) fail_reading(path, "something follows its end");
  const std::byte* end = bytes.data() + (bytes.size() - hash_bytes);
  if (take_bits<std::uint64_t>(end) != hash(bytes.data(), bytes.size() - hash_bytes)) {
    fail_reading(path, "the file is damaged: its checksum does not match");
  }
  checkpoint.parameters = take_floats(place, count);
  checkpoint.first_moment = take_floats(place, count);
  checkpoint.second_moment = take_floats(place, count);
  return checkpoint;
}

std::vector<std::byte> read_file(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) fail_reading(path, "it is a directory");
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) fail_reading(path, system_text());
  std::vector<std::byte> bytes;
  std::array<char, 1 << 16> block{};
  while (file.read(block.data(), block.size()) || file.gcount() > 0) {
    const auto* begin = reinterpret_cast<const std::byte*>(block.data());
    bytes.insert(bytes.end(), begin, begin + file.gcount());
  }
  if (file.bad()) fail_reading(path, system_text());
  return bytes;
}

void write_file(const std::string& path, const std::vector<std::byte>& bytes) {
  errno = 0;
  std::ofstream file(temporary(path), std::ios::binary);
  if (!file) fail_writing(temporary(path), system_text());
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file) fail_writing(temporary(path), system_text());
  std::error_code code;
  std::filesystem::rename(temporary(path), path, code);
  if (code) fail_writing(path, code.message());
}

void require_writable(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) fail_writing(path, "it is a directory");
  errno = 0;
  std::ofstream file(temporary(path), std::ios::binary);
  if (!file) fail_writing(temporary(path), system_text());
  file.close();
  std::filesystem::remove(temporary(path), ignored);
}

void require_model(const Checkpoint& checkpoint, const ModelConfig& model, const std::string& path) {
  if (checkpoint.model == model) return;
  throw krait::ConfigError("the checkpoint '" + path + "' is of a model of " + checkpoint.model.description() +
                           "; the options ask for " + model.description());
}

}  // namespace genome::train
