// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <krait/core/error.hpp>
#include <string>

#include "genome_common/fasta.hpp"

namespace {

using genome::Base;
using genome::FastaParser;
using genome::FastaRecord;
using genome::read_fasta;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::vector<FastaRecord> parse(const std::string& text) {
  FastaParser parser("x.fa");
  parser.feed(text);
  return parser.finish();
}

auto refuses(const std::string& what) {
  return ThrowsMessage<krait::FileError>(AllOf(HasSubstr("cannot read 'x.fa': "), HasSubstr(what)));
}

TEST(Bases, EveryLetterIsItsSetOfNucleotides) {
  EXPECT_EQ(genome::base_from_letter('A'), 1);
  EXPECT_EQ(genome::base_from_letter('c'), 2);
  EXPECT_EQ(genome::base_from_letter('G'), 4);
  EXPECT_EQ(genome::base_from_letter('t'), 8);
  EXPECT_EQ(genome::base_from_letter('U'), 8);
  EXPECT_EQ(genome::base_from_letter('N'), 15);
  unsigned seen = 0;
  for (const char letter : genome::base_letters) seen |= 1U << genome::base_from_letter(letter);
  EXPECT_EQ(seen, 0xfffeU) << "the 15 codes are all different";
}

TEST(Bases, NothingElseIsALetter) {
  int letters = 0;
  for (int code = 0; code < 256; ++code) letters += genome::base_from_letter(static_cast<char>(code)) != 0 ? 1 : 0;
  EXPECT_EQ(letters, 2 * 16) << "15 codes and U, in both cases";
}

TEST(Fasta, ReadsLinesOfAnyWidthAndCase) {
  const auto records = parse(">phage one\nACg\n\nt n\n");
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].name, "phage one");
  EXPECT_THAT(records[0].bases, ElementsAre(1, 2, 4, 8, 15));
}

TEST(Fasta, WindowsLineEndsAndAMissingLastOneAreFine) {
  const auto records = parse(">p\r\nAC\r\nGT");
  EXPECT_EQ(records[0].name, "p");
  EXPECT_THAT(records[0].bases, ElementsAre(1, 2, 4, 8));
}

TEST(Fasta, KeepsRecordsApart) {
  const auto records = parse(">a\nAA\n>b\nC\n");
  ASSERT_EQ(records.size(), 2U);
  EXPECT_EQ(records[0].bases.size(), 2U);
  EXPECT_EQ(records[1].name, "b");
  EXPECT_THAT(records[1].bases, ElementsAre(2));
}

TEST(Fasta, PiecesMayBeCutAnywhere) {
  const std::string text = ">name\r\nACGT\n>other\nNN\n";
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    FastaParser parser("x.fa");
    parser.feed(text.substr(0, cut));
    parser.feed(text.substr(cut));
    const auto records = parser.finish();
    ASSERT_EQ(records.size(), 2U);
    EXPECT_EQ(records[0].name, "name");
    EXPECT_EQ(records[0].bases.size(), 4U);
    EXPECT_EQ(records[1].bases.size(), 2U);
  }
}

TEST(Fasta, RefusesLettersThatAreNoBasesWithTheirPlace) {
  EXPECT_THAT([] { parse(">p\nACGT\nAC GJ\n"); }, refuses("line 3, column 5: 'J' is not a base"));
  EXPECT_THAT([] { parse(">p\nAC-GT\n"); }, refuses("line 2, column 3: '-' is not a base"));
  EXPECT_THAT([] { parse(">p\nAC\xc3\xa4\n"); }, refuses("line 2, column 3: byte 0xc3 is not a base"));
  EXPECT_THAT([] { parse(">p\nA>C\n"); }, refuses("'>' is not a base"));
}

TEST(Fasta, RefusesBinaryFiles) {
  EXPECT_THAT(
      [] {
        parse(
            std::string("\x7f"
                        "ELF\x02\0",
                        6));
      },
      refuses("binary file"));
  EXPECT_THAT([] { parse(std::string(">p\nAC\0G\n", 8)); }, refuses("line 2, column 3: byte 0x00"));
  EXPECT_THAT([] { parse(">p\x01\nAC\n"); }, refuses("line 1, column 3: byte 0x01"));
}

TEST(Fasta, RefusesTextWithoutHeader) {
  EXPECT_THAT([] { parse("ACGT\n"); },
              refuses("line 1, column 1: expected a header line, which begins with '>', got 'A'"));
}

TEST(Fasta, RefusesNothing) {
  EXPECT_THAT([] { parse(""); }, refuses("the file is empty"));
  EXPECT_THAT([] { parse("\n \n"); }, refuses("the file is empty"));
}

TEST(Fasta, RefusesAHeaderWithoutBases) {
  EXPECT_THAT([] { parse(">only\n"); }, refuses("line 1: the record 'only' has a header and no bases"));
  EXPECT_THAT([] { parse(">a\n>b\nAC\n"); }, refuses("line 1: the record 'a' has a header and no bases"));
  EXPECT_THAT([] { parse(">a\nAC\n>b\n\n"); }, refuses("line 3: the record 'b' has a header and no bases"));
}

/// A folder of its own for each test, removed behind it.
class FastaFiles : public testing::Test {
 protected:
  FastaFiles() : folder_(testing::TempDir() + "krait_fasta_" + std::to_string(getpid())) {
    std::filesystem::create_directories(folder_);
  }
  ~FastaFiles() override { std::filesystem::remove_all(folder_); }

  [[nodiscard]] std::string path(const std::string& name) const { return (folder_ / name).string(); }

  std::string write(const std::string& name, const std::string& contents) const {
    std::ofstream(path(name), std::ios::binary) << contents;
    return path(name);
  }

  std::string write_gzip(const std::string& name, const std::string& contents) const {
    gzFile file = gzopen(path(name).c_str(), "wb");
    gzwrite(file, contents.data(), static_cast<unsigned>(contents.size()));
    gzclose(file);
    return path(name);
  }

 private:
  std::filesystem::path folder_;
};

/// Long enough for several blocks, and badly compressible.
std::string long_text() {
  std::string text = ">long\n";
  unsigned value = 1;
  for (int i = 0; i < 300000; ++i) {
    value = value * 1664525U + 1013904223U;
    text += "ACGT"[value >> 30];
    if (i % 70 == 69) text += '\n';
  }
  return text;
}

TEST_F(FastaFiles, PlainAndGzipGiveTheSame) {
  const auto plain = read_fasta(write("a.fa", long_text()));
  const auto packed = read_fasta(write_gzip("a.fa.gz", long_text()));
  ASSERT_EQ(plain.size(), 1U);
  EXPECT_EQ(plain[0].bases.size(), 300000U);
  EXPECT_EQ(plain[0].bases, packed[0].bases);
}

TEST_F(FastaFiles, RefusesAMissingFile) {
  EXPECT_THAT([&] { read_fasta(path("none.fa")); },
              ThrowsMessage<krait::FileError>(AllOf(HasSubstr("none.fa"), HasSubstr("No such file"))));
}

TEST_F(FastaFiles, RefusesADirectory) {
  EXPECT_THAT([&] { read_fasta(path("")); }, ThrowsMessage<krait::FileError>(HasSubstr("it is a directory")));
}

TEST_F(FastaFiles, RefusesEmptyFiles) {
  const auto empty = [](const std::string& file) {
    EXPECT_THAT([&] { read_fasta(file); }, ThrowsMessage<krait::FileError>(HasSubstr("the file is empty")));
  };
  empty(write("empty.fa", ""));
  empty(write_gzip("empty.fa.gz", ""));
}

TEST_F(FastaFiles, RefusesATruncatedGzipWhereverItIsCut) {
  write_gzip("whole.fa.gz", long_text());
  std::ifstream whole(path("whole.fa.gz"), std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(whole), {}};
  for (const std::size_t kept :
       {std::size_t{5}, std::size_t{12}, bytes.size() / 2, bytes.size() - 9, bytes.size() - 1}) {
    const std::string cut = write("cut.fa.gz", bytes.substr(0, kept));
    EXPECT_THAT([&] { read_fasta(cut); }, ThrowsMessage<krait::FileError>(HasSubstr("the file is truncated")))
        << kept << " of " << bytes.size() << " bytes";
  }
}

TEST_F(FastaFiles, RefusesADamagedGzip) {
  write_gzip("whole.fa.gz", long_text());
  std::ifstream whole(path("whole.fa.gz"), std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(whole), {}};
  bytes[bytes.size() - 6] = static_cast<char>(bytes[bytes.size() - 6] ^ 1);  // in the checksum
  const std::string damaged = write("damaged.fa.gz", bytes);
  EXPECT_THAT([&] { read_fasta(damaged); }, ThrowsMessage<krait::FileError>(HasSubstr("damaged gzip data")));
}

}  // namespace
