// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "genome_common/first_rank.hpp"

#include <krait/core/error.hpp>
#include <string>

namespace genome {

void on_first_rank(const krait::Communicator& world, const std::function<void()>& work) {
  constexpr char file = 'f';
  constexpr char config = 'c';
  std::string error;  // its kind, then its text
  if (world.rank() == 0) {
    try {
      work();
    } catch (const krait::FileError& caught) {
      error = file + std::string(caught.what());
    } catch (const krait::ConfigError& caught) {
      error = config + std::string(caught.what());
    }
  }
  share(world, error);
  if (error.empty()) return;
  if (error.front() == config) throw krait::ConfigError(error.substr(1));
  throw krait::FileError(error.substr(1));
}

}  // namespace genome
