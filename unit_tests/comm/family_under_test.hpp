// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The communicator that the tests of this room run on. `Communicator::world()` decides, so that the same tests run
/// over one process, MPI and NCCL; KRAIT_TEST_FAMILY=queue puts messages beside it that are ordered as NCCL's are.

#include <comm/pattern.hpp>
#include <krait/comm/communicator.hpp>

namespace krait::test {

/// All ranks, in the family under test.
Communicator all_ranks();

/// Whether collective operations on device Views are ordered on queues.
bool is_queued(const Communicator& comm);

}  // namespace krait::test
