// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "genome_common/bases.hpp"

namespace genome {

/// One sequence of a FASTA file.
struct FastaRecord {
  std::string name;         ///< the header line without its '>'
  std::vector<Base> bases;  ///< never empty
};

/// Takes FASTA text piece by piece, cut anywhere, and collects its records.
///
/// Lines end in \n or \r\n; blank lines, spaces and tabs between bases mean nothing. Everything else that is neither a
/// header line nor an IUPAC letter is an error that names file, line and column.
class FastaParser {
 public:
  /// \param path  the file's name, for messages
  explicit FastaParser(std::string path) : path_(std::move(path)) {}

  /// \throws krait::FileError at the first character that cannot be part of a FASTA file
  void feed(std::string_view text);

  /// \throws krait::FileError when there was nothing, or a header without bases
  std::vector<FastaRecord> finish();

 private:
  void take(char letter);
  void take_base(char letter);
  void end_record() const;
  [[noreturn]] void fail(const std::string& what) const;

  std::string path_;
  std::vector<FastaRecord> records_;
  std::int64_t line_ = 1;
  std::int64_t column_ = 0;
  std::int64_t header_line_ = 0;
  bool in_header_ = false;
};

/// Reads a FASTA file, plain or gzip.
/// \throws krait::FileError that names the path, what is wrong and, where there is one, the line
std::vector<FastaRecord> read_fasta(const std::string& path);

}  // namespace genome
