// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <krait/core/error.hpp>
#include <string>

#include "../loss_log.hpp"

namespace {

using genome::train::LossLog;
using testing::HasSubstr;
using testing::StartsWith;
using testing::ThrowsMessage;

/// A file name of its own for each test, removed behind it.
class LossLogFile : public testing::Test {
 protected:
  LossLogFile() : path_(testing::TempDir() + "krait_loss_" + std::to_string(getpid()) + ".csv") {}
  ~LossLogFile() override { std::filesystem::remove(path_); }

  [[nodiscard]] std::string contents() const {
    std::ifstream file(path_);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::string path_;
};

constexpr const char* header = "step,bits_per_base,learning_rate,grad_norm,tokens_per_second\n";

TEST_F(LossLogFile, HasALinePerStepAsSoonAsItIsKnown) {
  LossLog log(path_, 0);
  EXPECT_EQ(contents(), header);
  log.add({.number = 1, .bits_per_base = 2.25, .learning_rate = 0.001, .gradient_norm = 0.5, .tokens_per_second = 1e4});
  EXPECT_EQ(contents(), std::string(header) + "1,2.25,0.001,0.5,10000\n");
}

TEST_F(LossLogFile, LossesKeepAllTheirDigits) {
  LossLog log(path_, 0);
  log.add({.number = 1, .bits_per_base = 1.0 / 3});
  EXPECT_EQ(std::stod(contents().substr(std::string(header).size() + 2)), 1.0 / 3);
}

TEST_F(LossLogFile, AContinuedRunKeepsTheLinesOfTheStepsThatAreDone) {
  {
    LossLog log(path_, 0);
    for (int step = 1; step <= 4; ++step) log.add({.number = step, .bits_per_base = 2.0 / step});
  }
  LossLog log(path_, 2);
  log.add({.number = 3, .bits_per_base = 7});
  EXPECT_EQ(contents(), std::string(header) + "1,2,0,0,0\n2,1,0,0,0\n3,7,0,0,0\n");
}

TEST_F(LossLogFile, AFreshRunStartsAFreshLog) {
  {
    LossLog(path_, 0).add({.number = 1});
  }
  const LossLog log(path_, 0);
  EXPECT_EQ(contents(), header);
}

TEST_F(LossLogFile, DoesNotOverwriteSomethingElse) {
  std::ofstream(path_) << ">a genome\nACGT\n";
  EXPECT_THAT([&] { LossLog(path_, 0); }, ThrowsMessage<krait::FileError>(HasSubstr("it exists and is no loss log")));
  EXPECT_THAT(contents(), StartsWith(">a genome"));
}

TEST(LossLog, RefusesWhatItCannotWrite) {
  EXPECT_THAT([] { LossLog("/no/such/folder/loss.csv", 0); },
              ThrowsMessage<krait::FileError>(HasSubstr("cannot write '/no/such/folder/loss.csv': No such file")));
  EXPECT_THAT([] { LossLog("/tmp", 0); }, ThrowsMessage<krait::FileError>(HasSubstr("it is a directory")));
}

}  // namespace
