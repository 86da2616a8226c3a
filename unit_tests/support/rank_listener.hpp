// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <gtest/gtest.h>

#include <string>

namespace krait::test {

/// Brings the failures of all ranks to rank 0, which alone prints. They are collected without communication and sent
/// when a test ends, where every rank arrives; the ranks then agree that the test has failed.
class RankListener final : public testing::EmptyTestEventListener {
 public:
  void OnTestPartResult(const testing::TestPartResult& result) override;
  void OnTestEnd(const testing::TestInfo& test) override;

 private:
  std::string failures_;  ///< of the running test: file, line and text, each ended by a zero byte
  bool gathering_ = false;
};

/// Ends the program, with a word about it, when a test runs longer than KRAIT_TEST_SECONDS (default 240): a rank that
/// waits for another one for ever would otherwise keep all of them. It uses the process's alarm.
class Watchdog final : public testing::EmptyTestEventListener {
 public:
  Watchdog();
  void OnTestStart(const testing::TestInfo& test) override;
  void OnTestEnd(const testing::TestInfo& test) override;

 private:
  unsigned seconds_;
};

}  // namespace krait::test
