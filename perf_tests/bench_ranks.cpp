// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Convolution and scan over ranks, every strategy on the same tokens. A time is that of the slowest rank, taken between
// barriers; strategies take turns, and the median of the rounds is printed. "one share" is a rank's part of the tokens
// by itself, on all ranks at the same time: what the operator would take if nothing had to be handed over.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <krait/comm/environment.hpp>
#include <krait/comm/reductions.hpp>
#include <krait/core/random.hpp>
#include <krait/parallel/sequence_operator.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace {

using krait::Communicator;
using krait::SequenceLayout;
using krait::Strategy;
using Exec = Kokkos::DefaultExecutionSpace;
using Activations = Kokkos::View<float***, Kokkos::LayoutRight>;
using Vector = Kokkos::View<float*>;
using Bytes = Kokkos::View<std::byte*>;

struct Options {
  std::int64_t heads = 80, head_dim = 64, groups = 1, d_state = 128;
  std::int64_t length = 65536;
  int rounds = 3;
  bool zigzag = false;
  bool slow_decay = false;
  bool backward = false;
  bool json = false;
};

constexpr const char* usage =
    "usage: mpirun -n RANKS krait_bench_ranks [options]\n"
    "  --heads H --head-dim P --groups G --d-state N   shape of the layer (80 64 1 128)\n"
    "  --length L     tokens of the whole sequence (65536)\n"
    "  --layout K     contiguous (default) or zigzag\n"
    "  --decay K      initialised (default) or slow\n"
    "  --backward     forward and backward\n"
    "  --rounds N     of which the median counts (3)\n"
    "  --json         an array of objects instead of the table\n";

[[noreturn]] void refuse(const std::string& what) {
  std::cerr << "krait_bench_ranks: " << what << '\n' << usage;
  std::exit(2);  // NOLINT(concurrency-mt-unsafe): nothing runs yet
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    const auto text = [&]() -> std::string {
      if (i + 1 >= argc) refuse(std::string(name) + " needs a value");
      return argv[++i];
    };
    const auto number = [&]() -> std::int64_t {
      const std::string given = text();
      char* end = nullptr;
      const std::int64_t value = std::strtoll(given.c_str(), &end, 10);
      if (*end != '\0' || value < 1) refuse(std::string(name) + " is " + given + ", expected a positive number");
      return value;
    };
    const auto choice = [&](const char* no, const char* yes) {
      const std::string given = text();
      if (given != no && given != yes) refuse(std::string(name) + " is " + given + ", expected " + no + " or " + yes);
      return given == yes;
    };
    if (name == "--heads")
      options.heads = number();
    else if (name == "--head-dim")
      options.head_dim = number();
    else if (name == "--groups")
      options.groups = number();
    else if (name == "--d-state")
      options.d_state = number();
    else if (name == "--length")
      options.length = number();
    else if (name == "--rounds")
      options.rounds = static_cast<int>(number());
    else if (name == "--layout")
      options.zigzag = choice("contiguous", "zigzag");
    else if (name == "--decay")
      options.slow_decay = choice("initialised", "slow");
    else if (name == "--backward")
      options.backward = true;
    else if (name == "--json")
      options.json = true;
    else if (!name.starts_with("--kokkos"))
      refuse("unknown option " + std::string(name));
  }
  return options;
}

struct FillNormal {
  float* values;
  double scale, shift;
  std::int64_t first;  ///< number of the first value in the whole
  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    values[i] = static_cast<float>(shift + scale * krait::normal(7, 0, static_cast<std::uint64_t>(first + i)));
  }
};

template <class View>
View normal_data(double scale, double shift, std::int64_t first, std::size_t a, std::size_t b = 0, std::size_t c = 0) {
  View view;
  if constexpr (View::rank() == 1)
    view = View("krait::perf::data", a);
  else
    view = View("krait::perf::data", a, b, c);
  Kokkos::parallel_for("krait::perf::fill",
                       Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>(0, std::int64_t(view.size())),
                       FillNormal{view.data(), scale, shift, first});
  return view;
}

/// Parameters as a layer is initialised with, or so that states hardly decay.
struct Parameters {
  Kokkos::View<float**, Kokkos::LayoutRight> weight;
  Vector bias, A_log, dt_bias, D;

  Parameters(const krait::SequenceOperatorConfig& config, bool slow)
      : weight("krait::perf::weight", static_cast<std::size_t>(config.conv_channels()),
               static_cast<std::size_t>(config.d_conv)),
        bias("krait::perf::bias", static_cast<std::size_t>(config.conv_channels())),
        A_log("krait::perf::A_log", static_cast<std::size_t>(config.heads)),
        dt_bias("krait::perf::dt_bias", static_cast<std::size_t>(config.heads)),
        D("krait::perf::D", static_cast<std::size_t>(config.heads)) {
    Kokkos::deep_copy(weight, 0.3F);
    Kokkos::deep_copy(D, 1.0F);
    const auto a = Kokkos::create_mirror_view(A_log);
    const auto dt = Kokkos::create_mirror_view(dt_bias);
    for (std::size_t h = 0; h < a.extent(0); ++h) {
      const double step = std::exp(std::log(1e-3) + krait::uniform(13, 0, h) * std::log(100.0));
      dt(h) = static_cast<float>(step + std::log(-std::expm1(-step)));
      const double rate = 1 + 15 * krait::uniform(14, 0, h);
      a(h) = static_cast<float>(std::log(slow ? 1e-4 * rate : rate));
    }
    Kokkos::deep_copy(A_log, a);
    Kokkos::deep_copy(dt_bias, dt);
  }

  [[nodiscard]] krait::SequenceOperatorParameters<float, Exec> views() const {
    return {.conv_weight = weight, .conv_bias = bias, .A_log = A_log, .dt_bias = dt_bias, .D = D, .D_per_channel = {}};
  }
};

/// One way to run the operator, with its memory.
class Way {
 public:
  Way(std::string name, Strategy strategy, const krait::SequenceOperatorConfig& config, Communicator context,
      SequenceLayout layout, bool backward)
      : name_(std::move(name)),
        context_(std::move(context)),
        layout_(std::move(layout)),
        documents_(krait::DocumentMap::whole_rows(1, layout_.length())),
        op_(krait::make_sequence_operator<float>(strategy, config)),
        backward_(backward) {}

  /// Seconds of one call, of the slowest rank.
  double time(const Communicator& world, const Parameters& parameters, const Activations& input, const Activations& y,
              const Activations& dy, const Activations& dinput) {
    const Exec exec;
    const Bytes workspace("krait::perf::workspace",  // touched before it is timed
                          std::max(op_->workspace_bytes(context_, layout_, 1, false),
                                   backward_ ? op_->backward_workspace_bytes(context_, layout_, 1, saving, false) : 0));
    Bytes saved;
    if (backward_) saved = Bytes("krait::perf::saved", op_->saved_bytes(context_, layout_, 1, saving));
    const auto call = [&] {
      op_->forward(exec, context_, layout_, documents_, parameters.views(),
                   {.xBCdt = input, .y = y, .workspace = workspace, .saved = saved, .saving = saving});
      if (backward_)
        op_->backward(
            exec, context_, layout_, documents_, parameters.views(), {},
            {.xBCdt = input, .dy = dy, .dxBCdt = dinput, .saved = saved, .saving = saving, .workspace = workspace});
    };
    if (rounds_.empty()) call();  // plans, and memory that is touched for the first time
    exec.fence();
    context_.reset_counters();
    world.barrier();
    const auto begin = std::chrono::steady_clock::now();
    call();
    exec.fence();
    const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    const auto moved = context_.counters().total();
    const auto largest = [&](double value) {
      const Kokkos::View<double*> view("krait::perf::largest", 1);
      Kokkos::deep_copy(view, value);
      krait::comm::all_reduce(exec, world, view, view, krait::Reduction::max).wait();
      return Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), view)(0);
    };
    bytes_received_ = largest(static_cast<double>(moved.bytes_received));
    messages_received_ = largest(static_cast<double>(moved.messages_received));
    waited_ = largest(moved.seconds_waited);
    rounds_.push_back(largest(elapsed));
    return rounds_.back();
  }

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] double median() const {
    std::vector<double> sorted = rounds_;
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }
  [[nodiscard]] double mebibytes_received() const { return bytes_received_ / (1 << 20); }
  [[nodiscard]] std::int64_t messages_received() const { return static_cast<std::int64_t>(messages_received_); }
  [[nodiscard]] double waited() const { return waited_; }

 private:
  static constexpr auto saving = krait::Saving::lean;
  std::string name_;
  Communicator context_;
  SequenceLayout layout_;
  krait::DocumentMap documents_;
  std::unique_ptr<krait::SequenceOperator<float>> op_;
  bool backward_;
  std::vector<double> rounds_;
  double bytes_received_ = 0, messages_received_ = 0, waited_ = 0;  // largest of a rank, last round
};

void run(const Options& options) {
  const Exec exec;
  const Communicator world = Communicator::world(exec);
  krait::SequenceOperatorConfig config{
      .heads = options.heads, .head_dim = options.head_dim, .groups = options.groups, .d_state = options.d_state};
  config.divisibility = krait::Divisibility::uneven;
  const SequenceLayout layout = options.zigzag ? SequenceLayout::zigzag(world, options.length)
                                               : SequenceLayout::contiguous(world, options.length);
  const std::int64_t local = layout.local_length();
  std::vector<Way> ways;
  ways.emplace_back("one share", Strategy::local, config, Communicator::self(),
                    SequenceLayout::contiguous(krait::Place{}, local), options.backward);
  ways.emplace_back("hidden_parallel", Strategy::hidden_parallel, config, world, layout, options.backward);
  for (const auto exchange :
       {krait::StateExchange::all_gather, krait::StateExchange::doubling, krait::StateExchange::chain}) {
    config.state_exchange = exchange;
    ways.emplace_back(std::string("state_passing:") + krait::name_of(exchange), Strategy::state_passing, config, world,
                      layout, options.backward);
  }

  const Parameters parameters(config, options.slow_decay);
  const auto rows = static_cast<std::size_t>(local);
  const auto width = static_cast<std::size_t>(config.input_width());
  const auto inner = static_cast<std::size_t>(config.d_inner());
  const std::int64_t first = layout.base(world.rank()) * config.input_width();
  const auto input = normal_data<Activations>(0.1, 0, first, 1, rows, width);
  const auto y = normal_data<Activations>(0, 0, 0, 1, rows, inner);
  const auto dy = normal_data<Activations>(1, 0, first, 1, options.backward ? rows : 0, inner);
  const auto dinput = normal_data<Activations>(0, 0, 0, 1, options.backward ? rows : 0, width);
  for (int round = 0; round < options.rounds; ++round)
    for (Way& way : ways) way.time(world, parameters, input, y, dy, dinput);

  if (world.rank() != 0) return;
  const double share = ways[0].median();
  const double hidden = ways[1].median();
  const char* const kind = options.zigzag ? "zigzag" : "contiguous";
  if (!options.json)
    std::printf("%s, %s decay, %d ranks x %d threads, %lld tokens, %s, float\n%-26s %9s %8s %8s %12s %9s %9s\n",
                options.backward ? "forward and backward" : "forward", options.slow_decay ? "slow" : "initialised",
                world.size(), exec.concurrency(), static_cast<long long>(options.length), kind, "strategy", "seconds",
                "/ share", "/ hidden", "MiB received", "messages", "waited s");
  else
    std::printf("[");
  for (std::size_t i = 0; i < ways.size(); ++i) {
    const Way& way = ways[i];
    if (!options.json)
      std::printf("%-26s %9.4f %8.3f %8.3f %12.2f %9lld %9.4f\n", way.name().c_str(), way.median(),
                  way.median() / share, way.median() / hidden, way.mebibytes_received(),
                  static_cast<long long>(way.messages_received()), way.waited());
    else
      std::printf(
          "%s\n  {\"strategy\": \"%s\", \"layout\": \"%s\", \"ranks\": %d, \"length\": %lld, \"seconds\": %.6f, "
          "\"mebibytes_received\": %.6f, \"messages_received\": %lld, \"seconds_waited\": %.6f}",
          i == 0 ? "" : ",", way.name().c_str(), kind, world.size(), static_cast<long long>(options.length),
          way.median(), way.mebibytes_received(), static_cast<long long>(way.messages_received()), way.waited());
  }
  if (options.json) std::printf("\n]\n");
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  const krait::Environment environment(argc, argv);
  try {
    run(options);
  } catch (const std::exception& error) {
    std::cerr << "krait_bench_ranks: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
