// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "genome_common/input_file.hpp"

#include <zlib.h>

#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <krait/core/error.hpp>
#include <system_error>

namespace genome {
namespace {

constexpr std::size_t block_bytes = 1 << 16;

[[noreturn]] void fail(const std::string& path, const std::string& what) {
  throw krait::FileError("cannot read '" + path + "': " + what);
}

std::string system_text(int code) { return std::generic_category().message(code); }

}  // namespace

InputFile::InputFile(const std::string& path) : path_(path), block_(block_bytes) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) fail(path, "it is a directory");
  errno = 0;
  file_ = gzopen(path.c_str(), "rb");
  if (file_ == nullptr) fail(path, errno != 0 ? system_text(errno) : "zlib has no memory for it");
}

InputFile::~InputFile() { gzclose(file_); }

std::string_view InputFile::next_block() {
  errno = 0;
  const int count = gzread(file_, block_.data(), static_cast<unsigned>(block_.size()));
  const int system_code = errno;
  // zlib hands out what precedes the damage first, and reports a missing end only here.
  int code = Z_OK;
  const char* text = gzerror(file_, &code);
  if (code == Z_BUF_ERROR) fail(path_, "the gzip data end before their end mark: the file is truncated");
  if (code == Z_ERRNO) fail(path_, system_text(system_code));
  if (count < 0 || (code != Z_OK && code != Z_STREAM_END)) fail(path_, std::string("damaged gzip data: ") + text);
  return {block_.data(), static_cast<std::size_t>(count)};
}

}  // namespace genome
