// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <string>
#include <string_view>
#include <vector>

struct gzFile_s;

namespace genome {

/// A file that is read from its beginning to its end, block by block; gzip files are unpacked on the way.
class InputFile {
 public:
  /// \throws krait::FileError when the file cannot be opened
  explicit InputFile(const std::string& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  InputFile(InputFile&&) = delete;
  InputFile& operator=(InputFile&&) = delete;

  /// The next block, valid until the next call; empty at the end of the file.
  /// \throws krait::FileError when the file cannot be read, or is a truncated or damaged gzip file
  std::string_view next_block();

 private:
  std::string path_;
  std::vector<char> block_;
  gzFile_s* file_ = nullptr;
};

}  // namespace genome
