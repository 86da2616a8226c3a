// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <krait/core/error.hpp>
#include <limits>
#include <string>

#include "../checkpoint.hpp"

namespace {

using genome::train::Checkpoint;
using genome::train::decode;
using genome::train::encode;
using genome::train::ModelConfig;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;
using Bytes = std::vector<std::byte>;

Checkpoint sample() {
  return {.model = {.layers = 3, .d_model = 32, .d_state = 16},
          .steps = 70000000000,
          .first_loss = 2.25,
          .parameters = {1.5F, -0.0F, std::numeric_limits<float>::denorm_min()},
          .first_moment = {3, 4, 5},
          .second_moment = {6, 7, 8}};
}

auto refuses(const std::string& what) {
  return ThrowsMessage<krait::FileError>(AllOf(HasSubstr("cannot read the checkpoint 'x.bin': "), HasSubstr(what)));
}

TEST(Checkpoint, ComesBackAsItWas) { EXPECT_EQ(decode(encode(sample()), "x.bin"), sample()); }

TEST(Checkpoint, IsLittleEndian) {
  const Bytes bytes = encode(sample());
  const std::string begin(reinterpret_cast<const char*>(bytes.data()), 17);
  EXPECT_EQ(begin, std::string("KRAITGEN\x01\0\0\0\0\0\0\0\x03", 17));
  // 1.5F is 0x3fc00000; the header has 64 bytes
  EXPECT_EQ(bytes[64], std::byte{0});
  EXPECT_EQ(bytes[66], std::byte{0xc0});
  EXPECT_EQ(bytes[67], std::byte{0x3f});
}

TEST(Checkpoint, RefusesATruncatedFileWhereverItIsCut) {
  const Bytes whole = encode(sample());
  for (std::size_t kept = 8; kept < whole.size(); ++kept) {
    const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(kept));
    EXPECT_THAT([&] { decode(cut, "x.bin"); }, refuses("the file is truncated")) << kept << " bytes";
  }
  EXPECT_THAT([] { decode({}, "x.bin"); }, refuses("the file is empty"));
}

TEST(Checkpoint, RefusesOtherFiles) {
  Bytes bytes = encode(sample());
  bytes[0] = std::byte{'>'};
  EXPECT_THAT([&] { decode(bytes, "x.bin"); }, refuses("it does not begin with KRAITGEN"));
  EXPECT_THAT([&] { decode({std::byte{'A'}}, "x.bin"); }, refuses("it does not begin with KRAITGEN"));
  bytes = encode(sample());
  bytes[8] = std::byte{2};
  EXPECT_THAT([&] { decode(bytes, "x.bin"); }, refuses("its version is 2, this program reads version 1"));
  bytes = encode(sample());
  bytes.push_back(std::byte{0});
  EXPECT_THAT([&] { decode(bytes, "x.bin"); }, refuses("something follows its end"));
}

TEST(Checkpoint, RefusesAnyFlippedBit) {
  const Bytes whole = encode(sample());
  for (std::size_t place = 0; place < whole.size(); ++place) {
    Bytes bytes = whole;
    bytes[place] ^= std::byte{0x10};
    EXPECT_THROW(decode(bytes, "x.bin"), krait::FileError) << "byte " << place;
  }
}

TEST(Checkpoint, RefusesAnotherModel) {
  ModelConfig other = sample().model;
  EXPECT_NO_THROW(require_model(sample(), other, "x.bin"));
  other.d_model = 64;
  EXPECT_THAT(
      [&] { require_model(sample(), other, "x.bin"); },
      ThrowsMessage<krait::ConfigError>(HasSubstr("'x.bin' is of a model of 3 layers of d_model 32, d_state 16; "
                                                  "the options ask for 3 layers of d_model 64, d_state 16")));
}

/// A folder of its own for each test, removed behind it.
class CheckpointFiles : public testing::Test {
 protected:
  CheckpointFiles() : folder_(testing::TempDir() + "krait_checkpoint_" + std::to_string(getpid())) {
    std::filesystem::create_directories(folder_);
  }
  ~CheckpointFiles() override { std::filesystem::remove_all(folder_); }

  [[nodiscard]] std::string path(const std::string& name) const { return (folder_ / name).string(); }
  [[nodiscard]] std::size_t files() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder_), {}));
  }

 private:
  std::filesystem::path folder_;
};

TEST_F(CheckpointFiles, AreReplacedAsAWhole) {
  const std::string file = path("a.bin");
  genome::train::write_file(file, Bytes(100000, std::byte{1}));
  EXPECT_EQ(genome::train::read_file(file), Bytes(100000, std::byte{1}));
  genome::train::write_file(file, encode(sample()));
  EXPECT_EQ(genome::train::read_file(file), encode(sample()));
  EXPECT_EQ(files(), 1U) << "no temporary file stays";
}

TEST_F(CheckpointFiles, WritabilityIsFoundOutWithoutATrace) {
  EXPECT_NO_THROW(genome::train::require_writable(path("a.bin")));
  EXPECT_EQ(files(), 0U);
  EXPECT_THAT([&] { genome::train::require_writable(path("none/a.bin")); },
              ThrowsMessage<krait::FileError>(AllOf(HasSubstr("none/a.bin"), HasSubstr("No such file"))));
  EXPECT_THAT([&] { genome::train::require_writable(path("")); },
              ThrowsMessage<krait::FileError>(HasSubstr("it is a directory")));
}

TEST_F(CheckpointFiles, RefusesToReadWhatIsNoFile) {
  EXPECT_THAT([&] { genome::train::read_file(path("none.bin")); },
              ThrowsMessage<krait::FileError>(AllOf(HasSubstr("none.bin"), HasSubstr("No such file"))));
  EXPECT_THAT([&] { genome::train::read_file(path("")); },
              ThrowsMessage<krait::FileError>(HasSubstr("it is a directory")));
}

}  // namespace
