// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// All of Krait's public headers.

#include <krait/comm/collectives.hpp>
#include <krait/comm/communicator.hpp>
#include <krait/comm/environment.hpp>
#include <krait/comm/mpi/mpi_communicator.hpp>
#include <krait/comm/point_to_point.hpp>
#include <krait/comm/reductions.hpp>
#include <krait/core/config.hpp>
#include <krait/core/error.hpp>
#include <krait/core/memory_meter.hpp>
#include <krait/core/random.hpp>
#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>
#include <krait/layout/document_map.hpp>
#include <krait/layout/head_partition.hpp>
#include <krait/layout/redistribution.hpp>
#include <krait/layout/sequence_layout.hpp>
#include <krait/mixer/mamba_mixer.hpp>
#include <krait/ops/causal_conv1d.hpp>
#include <krait/ops/causal_conv1d_backward.hpp>
#include <krait/ops/causal_conv1d_update.hpp>
#include <krait/ops/gated_rms_norm.hpp>
#include <krait/ops/gated_rms_norm_backward.hpp>
#include <krait/ops/projection.hpp>
#include <krait/ops/projection_backward.hpp>
#include <krait/ops/segment.hpp>
#include <krait/ops/ssd_scan.hpp>
#include <krait/ops/ssd_scan_backward.hpp>
#include <krait/ops/ssd_scan_summary.hpp>
#include <krait/ops/state_update.hpp>
#include <krait/parallel/hidden_parallel.hpp>
#include <krait/parallel/local.hpp>
#include <krait/parallel/machine.hpp>
#include <krait/parallel/measurement.hpp>
#include <krait/parallel/planner.hpp>
#include <krait/parallel/sequence_operator.hpp>
#include <krait/parallel/state_passing.hpp>
