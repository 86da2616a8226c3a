// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <krait/core/error.hpp>
#include <krait/mixer/mamba_config.hpp>
#include <krait/mixer/mamba_mixer.hpp>
#include <limits>

namespace {

using krait::ConfigError;
using krait::MambaConfig;
using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(MambaConfig, WidthsFollowFromTheArguments) {
  const MambaConfig config{.d_model = 2560, .groups = 1};
  EXPECT_EQ(config.d_inner(), 5120);
  EXPECT_EQ(config.head_count(), 80);
  EXPECT_EQ(config.projection_width(), 2 * 5120 + 2 * 128 + 80);
  EXPECT_NO_THROW(config.validate());

  const MambaConfig nemotron{.d_model = 4096, .heads = 128};
  EXPECT_EQ(nemotron.d_inner(), 8192);
  EXPECT_EQ(nemotron.projection_width(), 2 * 8192 + 2 * 8 * 128 + 128);
}

struct BadConfig {
  const char* message;
  std::function<void(MambaConfig&)> spoil;
  int tensor_ranks = 1;
};

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

class RefusedConfig : public testing::TestWithParam<BadConfig> {};

TEST_P(RefusedConfig, NamesTheValue) {
  MambaConfig config{.d_model = 64, .head_dim = 16, .groups = 4, .d_state = 8};
  ASSERT_NO_THROW(config.validate());
  GetParam().spoil(config);
  EXPECT_THAT([&] { config.validate(GetParam().tensor_ranks); },
              ThrowsMessage<ConfigError>(HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    All, RefusedConfig,
    testing::Values(
        BadConfig{"d_model is 0", [](MambaConfig& c) { c.d_model = 0; }},
        BadConfig{"d_model is -3", [](MambaConfig& c) { c.d_model = -3; }},
        BadConfig{"expand is 0", [](MambaConfig& c) { c.expand = 0; }},
        BadConfig{"head_dim is 0", [](MambaConfig& c) { c.head_dim = 0; }},
        BadConfig{"groups is 0", [](MambaConfig& c) { c.groups = 0; }},
        BadConfig{"d_state is -1", [](MambaConfig& c) { c.d_state = -1; }},
        BadConfig{"chunk_size is 0", [](MambaConfig& c) { c.chunk_size = 0; }},
        BadConfig{"d_conv is 0", [](MambaConfig& c) { c.d_conv = 0; }},
        BadConfig{"d_conv is 17, expected at most 16", [](MambaConfig& c) { c.d_conv = 17; }},
        BadConfig{"heads is -8", [](MambaConfig& c) { c.heads = -8; }},
        BadConfig{"d_inner (128) must be a multiple of head_dim (24)", [](MambaConfig& c) { c.head_dim = 24; }},
        BadConfig{"heads (8) must be a multiple of groups (3)", [](MambaConfig& c) { c.groups = 3; }},
        BadConfig{"heads (8) must be a multiple of the tensor-parallel ranks (3)", [](MambaConfig&) {}, 3},
        BadConfig{"groups (4) must be a multiple of the tensor-parallel ranks (8)", [](MambaConfig&) {}, 8},
        BadConfig{"A_init_range is (0, 16)", [](MambaConfig& c) { c.A_init_range = {0, 16}; }},
        BadConfig{"A_init_range is (4, 2)", [](MambaConfig& c) { c.A_init_range = {4, 2}; }},
        BadConfig{"dt_min and dt_max are 0 and 0.1", [](MambaConfig& c) { c.dt_min = 0; }},
        BadConfig{"dt_min and dt_max are 0.2 and 0.1", [](MambaConfig& c) { c.dt_min = 0.2; }},
        BadConfig{"dt_init_floor is 0", [](MambaConfig& c) { c.dt_init_floor = 0; }},
        BadConfig{"dt_limit is (2, 1)", [](MambaConfig& c) { c.dt_limit = {2, 1}; }},
        BadConfig{"norm_eps is -1", [](MambaConfig& c) { c.norm_eps = -1; }},
        BadConfig{"conv_init is -2", [](MambaConfig& c) { c.conv_init = -2; }},
        BadConfig{"dt_init is 'constant'", [](MambaConfig& c) { c.dt_init = "constant"; }},
        BadConfig{"d_model is 4611686018427387904", [](MambaConfig& c) { c.d_model = std::int64_t{1} << 62; }},
        BadConfig{"d_inner is 17179869184", [](MambaConfig& c) { c.expand = std::int64_t{1} << 28; }},
        BadConfig{"heads is 4611686018427387904", [](MambaConfig& c) { c.heads = std::int64_t{1} << 62; }},
        BadConfig{"A_init_range is (1, inf)", [](MambaConfig& c) { c.A_init_range = {1, infinity}; }},
        BadConfig{"dt_min and dt_max are 0.001 and inf", [](MambaConfig& c) { c.dt_max = infinity; }},
        BadConfig{"dt_limit is (0, nan)", [](MambaConfig& c) { c.dt_limit = {0, nan}; }},
        BadConfig{"norm_eps is nan", [](MambaConfig& c) { c.norm_eps = nan; }},
        BadConfig{"norm_eps is inf", [](MambaConfig& c) { c.norm_eps = infinity; }},
        BadConfig{"conv_init is inf", [](MambaConfig& c) { c.conv_init = infinity; }},
        BadConfig{"dt_scale is 2", [](MambaConfig& c) { c.dt_scale = 2; }},
        BadConfig{"state_dtype is bfloat16", [](MambaConfig& c) { c.state_dtype = krait::StateType::bfloat16; }}));

TEST(MambaMixer, RefusesTheConfigurationAtConstruction) {
  EXPECT_THAT([] { krait::MambaMixer<float>(Kokkos::DefaultExecutionSpace(), MambaConfig{}); },
              ThrowsMessage<ConfigError>(HasSubstr("d_model is 0")));
}

}  // namespace
