// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "genome_common/fasta.hpp"

#include <cstdio>
#include <krait/core/error.hpp>
#include <utility>

#include "genome_common/input_file.hpp"

namespace genome {
namespace {

constexpr char delete_character = 0x7f;

/// No text file holds these. Bytes of 128 and above may be letters of a name.
bool is_binary(char letter) {
  const auto code = static_cast<unsigned char>(letter);
  return (code < ' ' && letter != '\t' && letter != '\r') || letter == delete_character;
}

std::string quoted(char letter) {
  const auto code = static_cast<unsigned char>(letter);
  if (code > ' ' && code < delete_character) return std::string("'") + letter + "'";
  char text[16];
  std::snprintf(text, sizeof text, "byte 0x%02x", static_cast<unsigned>(code));
  return text;
}

}  // namespace

void FastaParser::feed(std::string_view text) {
  for (const char letter : text) take(letter);
}

void FastaParser::take(char letter) {
  if (letter == '\n') {
    in_header_ = false;
    ++line_;
    column_ = 0;
    return;
  }
  ++column_;
  if (is_binary(letter)) fail(quoted(letter) + " is no text: this is a binary file, not FASTA");
  if (in_header_) {
    if (letter != '\r') records_.back().name += letter;
  } else if (letter == '>' && column_ == 1) {
    end_record();
    records_.emplace_back();
    header_line_ = line_;
    in_header_ = true;
  } else if (letter != ' ' && letter != '\t' && letter != '\r') {
    take_base(letter);
  }
}

void FastaParser::take_base(char letter) {
  if (records_.empty()) fail("expected a header line, which begins with '>', got " + quoted(letter));
  const Base base = base_from_letter(letter);
  if (base == 0) {
    fail(quoted(letter) + " is not a base; expected one of " + std::string(base_letters) + " or U, in either case");
  }
  records_.back().bases.push_back(base);
}

void FastaParser::end_record() const {
  if (records_.empty() || !records_.back().bases.empty()) return;
  throw krait::FileError("cannot read '" + path_ + "': line " + std::to_string(header_line_) + ": the record '" +
                         records_.back().name + "' has a header and no bases");
}

std::vector<FastaRecord> FastaParser::finish() {
  if (records_.empty()) throw krait::FileError("cannot read '" + path_ + "': the file is empty");
  end_record();
  return std::move(records_);
}

void FastaParser::fail(const std::string& what) const {
  throw krait::FileError("cannot read '" + path_ + "': line " + std::to_string(line_) + ", column " +
                         std::to_string(column_) + ": " + what);
}

std::vector<FastaRecord> read_fasta(const std::string& path) {
  InputFile file(path);
  FastaParser parser(path);
  for (std::string_view block = file.next_block(); !block.empty(); block = file.next_block()) parser.feed(block);
  return parser.finish();
}

}  // namespace genome
