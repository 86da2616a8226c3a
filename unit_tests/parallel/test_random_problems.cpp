// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Problems drawn at random, the same on every rank: HiddenParallel on all ranks and Local on one rank give the numbers
// and the gradients of the reference, whatever the extents, the layout, the documents and the options.
#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <krait/parallel/sequence_operator.hpp>
#include <krait/reference/causal_conv1d_backward.hpp>
#include <krait/reference/ssd_scan_backward.hpp>
#include <numeric>
#include <parallel/backward_call.hpp>
#include <parallel/states_call.hpp>
#include <sstream>
#include <support/random_view.hpp>
#include <support/shrink.hpp>
#include <support/view_values.hpp>

namespace {

using namespace krait;        // NOLINT(google-build-using-namespace)
using namespace krait::test;  // NOLINT(google-build-using-namespace)

/// Draws one number after the other.
class Dice {
 public:
  explicit Dice(std::uint64_t seed) : seed_(seed) {}
  /// A number of [low, high].
  std::int64_t operator()(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(uniform(seed_, 0, next_++) * static_cast<double>(high - low + 1));
  }
  /// True once in `n` throws.
  bool once_in(std::int64_t n) { return (*this)(1, n) == 1; }

 private:
  std::uint64_t seed_;
  std::uint64_t next_ = 0;
};

/// What is drawn is at most this. A problem that fails is drawn again within smaller limits.
struct Limits {
  static constexpr std::size_t count = 9;
  static constexpr std::array<const char*, count> names = {
      "rows", "length", "documents", "groups", "group_heads", "head_dim", "d_state", "d_conv", "chunk_size"};
  using Sizes = std::array<std::int64_t, count>;
  static constexpr Sizes least = {1, 0, 1, 1, 1, 1, 1, 1, 1};
  Sizes sizes = {4, 200, 8, 4, 12, 9, 11, 16, 64};

  [[nodiscard]] std::int64_t rows(std::int64_t drawn) const { return std::min(drawn, sizes[0]); }
  [[nodiscard]] std::int64_t length(std::int64_t drawn) const { return std::min(drawn, sizes[1]); }
  /// Places in a row where a document may end and another one begin.
  [[nodiscard]] std::int64_t cuts(std::int64_t drawn) const { return std::min(drawn, sizes[2] - 1); }
  [[nodiscard]] std::int64_t groups(std::int64_t drawn) const { return std::min(drawn, sizes[3]); }
  [[nodiscard]] std::int64_t group_heads(std::int64_t drawn) const { return std::min(drawn, sizes[4]); }
  [[nodiscard]] std::int64_t head_dim(std::int64_t drawn) const { return std::min(drawn, sizes[5]); }
  [[nodiscard]] std::int64_t d_state(std::int64_t drawn) const { return std::min(drawn, sizes[6]); }
  [[nodiscard]] std::int64_t d_conv(std::int64_t drawn) const { return std::min(drawn, sizes[7]); }
  [[nodiscard]] std::int64_t chunk_size(std::int64_t drawn) const { return std::min(drawn, sizes[8]); }
  [[nodiscard]] bool smallest_documents() const { return sizes[2] < Limits().sizes[2]; }
};

/// Boundaries of 1 to 8 documents, some of them empty.
std::vector<std::int64_t> draw_boundaries(Dice& dice, const Limits& limits, std::int64_t length) {
  std::vector<std::int64_t> cu = {0, length};
  for (std::int64_t cuts = limits.cuts(dice(0, 7)); cuts > 0; --cuts) cu.push_back(dice(0, length));
  std::sort(cu.begin(), cu.end());
  return cu;
}

/// A partition of the tokens in any order; ranks may stay without.
SequenceLayout draw_explicit(Dice& dice, const Place& place, std::int64_t length) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(length));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  for (std::int64_t i = length - 1; i > 0; --i)
    std::swap(order[static_cast<std::size_t>(i)], order[static_cast<std::size_t>(dice(0, i))]);
  std::vector<std::vector<std::int64_t>> tokens(static_cast<std::size_t>(place.size));
  const std::int64_t last = dice(0, place.size - 1);  // later ranks get nothing
  for (const std::int64_t t : order) tokens[static_cast<std::size_t>(dice(0, last))].push_back(t);
  return SequenceLayout::explicit_tokens(place, tokens);
}

SequenceLayout draw_layout(Dice& dice, const Limits& limits, const Place& place, std::int64_t length) {
  const Policy policy = dice.once_in(3) ? Policy::tail_pad : Policy::even;
  switch (dice(0, 4)) {
    case 0:
      return SequenceLayout::contiguous(place, length, policy);
    case 1:
      return SequenceLayout::zigzag(place, length, policy);
    case 2:
      return SequenceLayout::zigzag_docs(place, draw_boundaries(dice, limits, length), policy);
    case 3:  // exact, of about this length
      return SequenceLayout::zigzag(place, length / (2 * place.size) * 2 * place.size, Policy::exact);
    default:
      return draw_explicit(dice, place, length);
  }
}

/// Ids of one row: -1 is padding; an id that comes back later is a new document.
void draw_ids(Dice& dice, const Limits& limits, const SequenceLayout& layout, std::int32_t* ids) {
  std::int32_t id = -1;
  std::int64_t cuts = limits.smallest_documents() ? limits.cuts(layout.length()) : layout.length();
  for (const Slot& slot : layout.slots()) {
    const bool whole = layout.kind() == SequenceLayout::Kind::zigzag_docs;  // there a document is a slot
    const bool skipped = dice.once_in(6);
    const std::int64_t end = whole ? slot.begin + dice(0, slot.real) : slot.begin + slot.real;
    ++id;
    for (std::int64_t t = slot.begin; t < slot.end; ++t) {
      if (!whole && dice.once_in(20) && cuts-- > 0) id = static_cast<std::int32_t>(dice(-2, 5));
      ids[t] = t >= end || (whole && skipped) ? -1 : id;
    }
  }
}

DocumentMap draw_documents(Dice& dice, const Limits& limits, const SequenceLayout& layout, std::int64_t rows) {
  const std::int64_t length = layout.length();
  const bool by_document = layout.kind() == SequenceLayout::Kind::zigzag_docs;
  const bool padded = layout.real_length() < length;
  if (rows == 1 && dice.once_in(3)) {
    if (by_document || padded)
      return DocumentMap::from_cu_seqlens(layout.padded_boundaries(), layout.real_lengths(), length);
    const auto cu = draw_boundaries(dice, limits, length);
    std::vector<std::int64_t> real;
    for (std::size_t d = 1; d < cu.size(); ++d) real.push_back(dice(0, cu[d] - cu[d - 1]));
    return DocumentMap::from_cu_seqlens(cu, real, length);
  }
  if (!by_document && !padded && dice.once_in(3)) return DocumentMap::whole_rows(rows, length);
  if (!by_document && !padded && dice.once_in(2)) {
    std::vector<std::vector<std::int64_t>> cu;
    for (std::int64_t b = 0; b < rows; ++b) {
      cu.push_back(draw_boundaries(dice, limits, length));
      if (dice.once_in(3) && cu.back().size() > 2) cu.back().pop_back();  // the rest is one more document
    }
    return DocumentMap::from_cu_seqlens_per_row(cu, length);
  }
  std::vector<std::int32_t> ids(static_cast<std::size_t>(rows * length));
  for (std::int64_t b = 0; b < rows; ++b) draw_ids(dice, limits, layout, ids.data() + b * length);
  return DocumentMap::from_seq_idx(ids, rows, length);
}

SequenceOperatorConfig draw_config(Dice& dice, const Limits& limits, int ranks) {
  SequenceOperatorConfig config;
  config.groups = limits.groups(dice(1, 4));
  config.heads = config.groups * limits.group_heads(dice(1, 12 / config.groups));
  if (dice.once_in(3)) config.heads = config.groups * limits.group_heads(ranks);
  config.head_dim = limits.head_dim(dice(1, 9));
  config.d_state = limits.d_state(dice.once_in(4) ? 1 : dice(2, 11));
  config.d_conv = limits.d_conv(dice.once_in(2) ? dice(1, 4) : dice(5, 16));
  config.chunk_size = limits.chunk_size(dice(1, 64));
  config.activation = dice.once_in(4) ? Activation::none : Activation::silu;
  if (dice.once_in(3)) {
    config.dt_limit = {0.003, 0.03};
  }
  const bool divides = config.heads % ranks == 0 && (config.groups % ranks == 0 || ranks % config.groups == 0);
  if (!divides || dice.once_in(2)) config.divisibility = Divisibility::uneven;
  config.state_exchange = std::array{StateExchange::automatic, StateExchange::all_gather, StateExchange::doubling,
                                     StateExchange::chain}[static_cast<std::size_t>(dice(0, 3))];
  if (dice.once_in(2)) config.head_blocks = dice(1, config.heads);
  return config;
}

/// One problem; all ranks draw the same.
template <Scalar T>
struct Problem {
  Dice dice;
  SequenceOperatorConfig config;
  std::int64_t rows;
  SequenceLayout layout;
  DocumentMap documents;
  OperatorParameters<T> parameters;
  Array<accumulator_t<T>**> D_per_channel;
  SequenceOperatorParameters<T, Exec> views;

  Problem(std::uint64_t seed, const Place& place, const Limits& limits)
      : dice(seed),
        config(draw_config(dice, limits, place.size)),
        rows(limits.rows(dice(1, 4))),
        layout(
            draw_layout(dice, limits, place, limits.length(dice.once_in(4) ? dice(0, 2 * place.size) : dice(0, 200)))),
        documents(draw_documents(dice, limits, layout, rows)),
        parameters(config, dice.once_in(2) ? Decay::slow : Decay::initialised),
        D_per_channel("krait::test::D_per_channel", static_cast<std::size_t>(config.heads),
                      static_cast<std::size_t>(config.head_dim)),
        views(parameters.views()) {
    fill_normal(D_per_channel, seed + 1);
    if (dice.once_in(3)) {
      views.D = {};
      if (dice.once_in(2)) views.D_per_channel = D_per_channel;
    }
    if (dice.once_in(4)) views.conv_bias = {};
    if (dice.once_in(4)) views.dt_bias = {};
  }

  /// Inputs, or gradients; padding holds NaN.
  [[nodiscard]] Values values(std::uint64_t seed, std::int64_t width, const std::vector<std::int32_t>& ids) const {
    const auto plain = normal_values(seed, layout.length(), width);
    return [this, &ids, plain](std::int64_t b, std::int64_t t, std::int64_t c) {
      const bool padding = ids[static_cast<std::size_t>(b * layout.length() + t)] < 0;
      return padding ? std::numeric_limits<float>::quiet_NaN() : plain(b, t, c);
    };
  }
  [[nodiscard]] Values input(const std::vector<std::int32_t>& ids) const {
    return values(3, config.input_width(), ids);
  }
  [[nodiscard]] Values dy(const std::vector<std::int32_t>& ids) const { return values(4, config.d_inner(), ids); }

  /// y of the tokens that `of` holds.
  [[nodiscard]] std::vector<double> run(Strategy strategy, const Communicator& context, const SequenceLayout& of,
                                        const std::vector<std::int32_t>& ids, bool overwrite) const {
    const Exec exec;
    const auto op = make_sequence_operator<T>(strategy, config);
    const OperatorRoom room = overwrite ? op->room(context, of, rows) : OperatorRoom();
    const auto shard = make_shard<T>(of, rows, config.input_width(), input(ids));
    const std::array<std::int64_t, 3> wide = {rows, of.local_length(), config.input_width()};
    const std::array<std::int64_t, 3> narrow = {rows, of.local_length(), config.d_inner()};
    const Array<T*> x("krait::test::x", std::max(shard.size(), static_cast<std::size_t>(room.xBCdt)));
    const auto y = poisoned_view<Array<T*>>(std::max(narrow[0] * narrow[1] * narrow[2], room.y));
    const auto xBCdt = make_tensor<T***, Exec, 3>(x.data(), wide);
    const auto out =
        room.y_over_x ? krait::impl::columns(xBCdt, 0, config.d_inner()) : make_tensor<T***, Exec, 3>(y.data(), narrow);
    Kokkos::deep_copy(exec, xBCdt, shard);
    const Array<std::byte*> workspace("krait::test::workspace", op->workspace_bytes(context, of, rows, overwrite));
    op->forward(exec, context, of, documents, views, {.xBCdt = xBCdt, .y = out, .workspace = workspace, .room = room});
    exec.fence("krait::test: forward is done");
    return values_of(out);
  }

  struct Reference {
    std::vector<double> y;       ///< (rows, length, d_inner)
    std::vector<double> dxBCdt;  ///< (rows, length, input_width)
    NamedGradients parameters;
  };

  /// By the definition.
  [[nodiscard]] Reference reference(const std::vector<std::int32_t>& ids) const {
    const std::int64_t channels = config.conv_channels();
    const std::int64_t inner = config.d_inner();
    const std::int64_t states = config.groups * config.d_state;
    const auto columns = [&](const Values& value, std::int64_t begin, std::int64_t end) {
      std::vector<double> result;
      for (std::int64_t b = 0; b < rows; ++b)
        for (std::int64_t t = 0; t < layout.length(); ++t)
          for (std::int64_t c = begin; c < end; ++c) result.push_back(static_cast<double>(T(value(b, t, c))));
      return result;
    };
    const std::vector<double> xBC = columns(input(ids), 0, channels);
    const std::vector<double> weight = values_of(views.conv_weight);
    const std::vector<double> bias = is_absent(views.conv_bias) ? std::vector<double>() : values_of(views.conv_bias);
    const reference::CausalConv1d convolution{.channels = channels,
                                              .taps = config.d_conv,
                                              .silu = config.activation == Activation::silu,
                                              .x = xBC,
                                              .weight = weight,
                                              .bias = bias,
                                              .initial = {}};
    const std::vector<double> u = convolution(documents.runs()).out;
    const auto part = [&](std::int64_t begin, std::int64_t count) {
      std::vector<double> result;
      for (std::size_t row = 0; row < u.size(); row += static_cast<std::size_t>(channels))
        for (std::int64_t c = begin; c < begin + count; ++c) result.push_back(u[row + static_cast<std::size_t>(c)]);
      return result;
    };
    reference::SsdScan scan;
    scan.heads = config.heads;
    scan.head_dim = config.head_dim;
    scan.groups = config.groups;
    scan.d_state = config.d_state;
    scan.dt_min = config.dt_limit.first;
    scan.dt_max = config.dt_limit.second;
    scan.x = part(0, inner);
    scan.B = part(inner, states);
    scan.C = part(inner + states, states);
    scan.dt = columns(input(ids), channels, channels + config.heads);
    for (const double value_of_A : values_of(views.A_log)) scan.A.push_back(-std::exp(value_of_A));
    if (!is_absent(views.dt_bias)) scan.dt_bias = values_of(views.dt_bias);
    if (!is_absent(views.D)) scan.D = values_of(views.D);
    if (!is_absent(views.D_per_channel)) scan.D_per_channel = values_of(views.D_per_channel);

    const std::vector<double> dout = columns(dy(ids), 0, inner);
    const reference::SsdScanGradients dscan = reference::ssd_scan_backward(scan, documents.runs(), dout, {});
    // Row by row side by side.
    const auto join = [](const std::vector<std::pair<const std::vector<double>*, std::int64_t>>& parts,
                         std::size_t tokens) {
      std::vector<double> result;
      for (std::size_t t = 0; t < tokens; ++t)
        for (const auto& [values, width] : parts) {
          const auto begin = values->begin() + static_cast<std::ptrdiff_t>(t) * width;
          result.insert(result.end(), begin, begin + width);
        }
      return result;
    };
    const auto tokens = static_cast<std::size_t>(rows * layout.length());
    const std::vector<double> du = join({{&dscan.x, inner}, {&dscan.B, states}, {&dscan.C, states}}, tokens);
    const reference::CausalConv1dGradients dconv =
        reference::causal_conv1d_backward(convolution, documents.runs(), du, {});
    Reference result;
    result.y = reference::ssd_scan(scan, documents.runs()).out;
    result.dxBCdt = join({{&dconv.x, channels}, {&dscan.dt, config.heads}}, tokens);
    std::vector<double> dA_log;
    for (std::size_t h = 0; h < scan.A.size(); ++h) dA_log.push_back(scan.A[h] * dscan.A[h]);
    const auto add = [&result](const char* name, const std::vector<double>& values) {
      if (!values.empty()) result.parameters.emplace_back(name, values);
    };
    add("conv_weight", dconv.weight);
    add("conv_bias", dconv.bias);
    add("A_log", dA_log);
    add("dt_bias", dscan.dt_bias);
    add("D", dscan.D);
    add("D_per_channel", dscan.D_per_channel);
    return result;
  }

  [[nodiscard]] std::string description() const {
    std::ostringstream text;
    text << layout.description() << ", rows " << rows << ", documents " << documents.documents() << ", heads "
         << config.heads << ", head_dim " << config.head_dim << ", groups " << config.groups << ", d_state "
         << config.d_state << ", d_conv " << config.d_conv << ", chunk_size " << config.chunk_size << ", exchange "
         << name_of(config.state_exchange) << ", head_blocks " << config.head_blocks;
    return text.str();
  }
};

/// Every strategy against the reference.
template <Scalar T>
void expect_solved(Problem<T>& problem, const Communicator& world, double tolerance, double gradient_tolerance) {
  const auto ids = problem.documents.seq_idx();
  const auto reference = problem.reference(ids);
  const auto whole = [&problem](const std::vector<double>& values, std::int64_t width) {
    Array<double***> view("krait::test::whole", static_cast<std::size_t>(problem.rows),
                          static_cast<std::size_t>(problem.layout.length()), static_cast<std::size_t>(width));
    std::copy(values.begin(), values.end(), view.data());
    return view;
  };
  const auto whole_y = whole(reference.y, problem.config.d_inner());
  const auto whole_dxBCdt = whole(reference.dxBCdt, problem.config.input_width());
  const auto check = [&](Strategy strategy, const Communicator& context, const SequenceLayout& layout, bool overwrite,
                         Saving saving) {
    SCOPED_TRACE(std::string(name_of(strategy)) + ", overwrite " + std::to_string(overwrite) + ", rank " +
                 std::to_string(world.rank()));
    EXPECT_LE(relative_rms(problem.run(strategy, context, layout, ids, overwrite), shard_of_whole(whole_y, layout)),
              tolerance);
    const BackwardCall<T> call{problem.config, strategy, saving, overwrite, problem.input(ids), problem.dy(ids)};
    const Gradients gradients = call.run(context, layout, problem.documents, problem.views);
    EXPECT_LE(relative_rms(gradients.dxBCdt, shard_of_whole(whole_dxBCdt, layout)), gradient_tolerance);
    EXPECT_TRUE(gradients_close(gradients.parameters, reference.parameters, gradient_tolerance));
  };
  check(Strategy::hidden_parallel, world, problem.layout, false, Saving::lean);
  check(Strategy::hidden_parallel, world, problem.layout, true, problem.dice.once_in(2) ? Saving::lean : Saving::full);
  check(Strategy::state_passing, world, problem.layout, problem.dice.once_in(2),
        problem.dice.once_in(2) ? Saving::lean : Saving::full);
  const bool in_order = problem.layout.kind() == SequenceLayout::Kind::zigzag_docs || problem.dice.once_in(2);
  const auto alone = in_order ? SequenceLayout::contiguous(Place{}, problem.layout.length())
                              : draw_explicit(problem.dice, Place{}, problem.layout.length());
  check(Strategy::local, Communicator::self(), alone, false, problem.dice.once_in(2) ? Saving::lean : Saving::full);
}

/// With states of documents, every strategy on all ranks against Local on one.
template <Scalar T>
void expect_states_solved(std::uint64_t seed, Problem<T>& problem, const Communicator& world, double tolerance) {
  using A = accumulator_t<T>;
  const auto ids = problem.documents.seq_idx();
  const auto initial = States<T, A>::normal(problem.config, problem.documents.documents(), seed + 2);
  const auto dfinal = States<A, A>::normal(problem.config, problem.documents.documents(), seed + 4);
  const auto run = [&](Strategy strategy, Saving saving, const Communicator& context, const SequenceLayout& layout) {
    return StatesCall<T>{problem.config, strategy, saving}.run(
        context, layout, problem.documents, problem.views,
        make_shard<T>(layout, problem.rows, problem.config.input_width(), problem.input(ids)),
        make_shard<T>(layout, problem.rows, problem.config.d_inner(), problem.dy(ids)), initial, dfinal);
  };
  const auto want = run(Strategy::local, Saving::full, Communicator::self(),
                        SequenceLayout::contiguous(Place{}, problem.layout.length()));
  for (const Strategy strategy : {Strategy::hidden_parallel, Strategy::state_passing}) {
    SCOPED_TRACE(name_of(strategy));
    const Saving saving = problem.dice.once_in(2) ? Saving::lean : Saving::full;
    expect_states_close<T>(run(strategy, saving, world, problem.layout), want, world, problem.layout, tolerance);
  }
}

/// What a forward of state passing writes.
struct Written {
  std::vector<double> y, final_conv, final_ssm;

  friend bool operator==(const Written&, const Written&) = default;
};

/// Where y lies: in place of x, or apart from an input that is lost or that stays.
enum class Lies { over_x, apart, behind_input };

/// By one operator for all, so that calls in place follow others.
template <Scalar T>
Written written(const Problem<T>& problem, SequenceOperator<T>& op, const Communicator& world,
                const std::vector<std::int32_t>& ids, Lies lies, bool with_states, std::uint64_t seed) {
  using A = accumulator_t<T>;
  const Exec exec;
  const SequenceLayout& layout = problem.layout;
  const std::int64_t documents = problem.documents.documents();
  const bool overwrite = lies != Lies::behind_input;
  const OperatorRoom room = overwrite ? op.room(world, layout, problem.rows) : OperatorRoom();
  const auto xBCdt = make_shard<T>(layout, problem.rows, problem.config.input_width(), problem.input(ids));
  const auto apart = poisoned_view<Array<T***>>(problem.rows, layout.local_length(), problem.config.d_inner());
  const Tensor<T***, Exec> input = xBCdt;
  const Tensor<T***, Exec> y =
      lies == Lies::over_x ? krait::impl::columns(input, 0, problem.config.d_inner()) : Tensor<T***, Exec>(apart);
  const auto memory =
      poisoned_view<Array<float*>>((op.workspace_bytes(world, layout, problem.rows, overwrite) + 3) / 4);
  // The final states take the place of the initial ones.
  const auto states = States<T, A>::normal(problem.config, documents, seed);
  SequenceOperatorArguments<T, Exec> arguments{
      .xBCdt = xBCdt,
      .y = y,
      .workspace = make_tensor<std::byte*, Exec, 1>(reinterpret_cast<std::byte*>(memory.data()),
                                                    {4 * static_cast<std::int64_t>(memory.size())}),
      .room = room};
  if (with_states) {
    arguments.initial = {.conv = states.conv, .ssm = states.ssm};
    arguments.final = {.conv = states.conv, .ssm = states.ssm};
  }
  op.forward(exec, world, layout, problem.documents, problem.views, arguments);
  exec.fence("krait::test: forward is done");
  if (!overwrite) {
    EXPECT_TRUE(same(xBCdt, make_shard<T>(layout, problem.rows, problem.config.input_width(), problem.input(ids))));
  }
  return {values_of(y), values_of(states.conv), values_of(states.ssm)};
}

template <Scalar T>
void expect_the_same_in_place(std::uint64_t seed, const Problem<T>& problem, const Communicator& world) {
  const auto ids = problem.documents.seq_idx();
  const auto op = make_sequence_operator<T>(Strategy::state_passing, problem.config);
  for (const bool with_states : {true, false}) {
    const auto run = [&](Lies lies) { return written(problem, *op, world, ids, lies, with_states, seed); };
    const Written want = run(Lies::behind_input);
    EXPECT_TRUE(run(Lies::over_x) == want) << "over x, states " << with_states;
    EXPECT_TRUE(run(Lies::apart) == want) << "apart, states " << with_states;
    EXPECT_TRUE(run(Lies::behind_input) == want) << "again, states " << with_states;
  }
}

/// True on all ranks when it is on one.
bool on_any_rank(const Communicator& world, bool here) {
  const Array<std::int32_t*> flag("krait::test::flag", 1);
  Kokkos::deep_copy(flag, here ? 1 : 0);
  comm::all_reduce(Exec(), world, flag, flag, Reduction::max).wait();
  return values_of(flag)[0] != 0;
}

/// What `expect` expected in vain on this rank; not yet a failure of the test.
template <class Expect>
std::string complaints(const Expect& expect) {
  testing::TestPartResultArray results;
  {
    const testing::ScopedFakeTestPartResultReporter keep(&results);
    expect();
  }
  std::string all;
  for (int i = 0; i < results.size(); ++i) {
    if (results.GetTestPartResult(i).failed()) all += results.GetTestPartResult(i).message() + std::string("\n");
  }
  return all;
}

/// Draws a problem, and if it is not solved looks for the smallest limits within which this seed's problem still is
/// not: those are reported.
template <Scalar T, class Expect>
void check(std::uint64_t seed, const Expect& expect, const Limits& limits = {}) {
  const auto world = Communicator::world(Exec());
  std::string report;  // of the last problem that failed somewhere
  const auto fails = [&](const Limits::Sizes& sizes) {
    Problem<T> problem(seed, world.place(), Limits{sizes});
    const std::string wrong = complaints([&] { expect(problem, world); });
    if (!on_any_rank(world, !wrong.empty())) return false;
    report = problem.description() + '\n' + (wrong.empty() ? "nothing is wrong on this rank" : wrong);
    return true;
  };
  if (!fails(limits.sizes)) return;
  const Limits::Sizes smallest = shrink(limits.sizes, Limits::least, fails);
  std::ostringstream line;
  line << "seed " << seed << ", limits {";
  for (std::size_t i = 0; i < Limits::count; ++i)
    line << (i == 0 ? "" : ", ") << smallest[i] << " /* " << Limits::names[i] << " */";
  ADD_FAILURE() << line.str() << "}, " << world.size() << " ranks: " << report;
}

template <Scalar T>
void check_problem(std::uint64_t seed, double tolerance, double gradient_tolerance) {
  check<T>(seed, [&](Problem<T>& problem, const Communicator& world) {
    expect_solved(problem, world, tolerance, gradient_tolerance);
  });
}

template <Scalar T>
void check_states(std::uint64_t seed, double tolerance) {
  check<T>(seed, [&](Problem<T>& problem, const Communicator& world) {
    expect_states_solved(seed, problem, world, tolerance);
  });
}

TEST(RandomProblems, Double) {
  for (std::uint64_t seed = 1000; seed < 1060; ++seed) check_problem<double>(seed, 1e-12, 1e-12);
}

TEST(RandomProblems, Float) {
  for (std::uint64_t seed = 2000; seed < 2030; ++seed) check_problem<float>(seed, 1e-5, 2e-4);
}

TEST(RandomProblems, StatesDouble) {
  for (std::uint64_t seed = 3000; seed < 3080; ++seed) check_states<double>(seed, 1e-12);
}

TEST(RandomProblems, StatesFloat) {
  for (std::uint64_t seed = 4000; seed < 4030; ++seed) check_states<float>(seed, 1e-5);
}

template <Scalar T>
void check_in_place(std::uint64_t seed) {
  check<T>(seed, [&](const Problem<T>& problem, const Communicator& world) {
    expect_the_same_in_place(seed, problem, world);
  });
}

TEST(RandomProblems, InPlaceIsTheSame) {
  for (std::uint64_t seed = 5000; seed < 5010; ++seed) {
    check_in_place<double>(seed);
    check_in_place<float>(seed + 10);
    check_in_place<bfloat16>(seed + 20);
    check_in_place<float16>(seed + 30);
  }
}

TEST(RandomProblems, FailuresAreReportedAsSmallAsTheyStillFail) {
  // Wrong on the last rank only, from 20 tokens and 2 rows on.
  const auto large = [](Problem<double>& problem, const Communicator& world) {
    if (world.rank() == world.size() - 1) {
      EXPECT_FALSE(problem.layout.length() >= 20 && problem.rows >= 2) << "too large";
    }
  };
  std::string reported;
  for (std::uint64_t seed = 1; reported.empty(); ++seed) reported = complaints([&] { check<double>(seed, large); });
  EXPECT_NE(reported.find("limits {2 /* rows */, "), std::string::npos) << reported;
  EXPECT_NE(reported.find(" 1 /* documents */, 1 /* groups */, 1 /* group_heads */, 1 /* head_dim */"),
            std::string::npos)
      << reported;
  const auto world = Communicator::world(Exec());
  EXPECT_EQ(reported.find("too large") != std::string::npos, world.rank() == world.size() - 1);
}

TEST(RandomProblems, LimitsHold) {
  for (std::uint64_t seed = 1000; seed < 1060; ++seed) {
    const Problem<double> problem(seed, Place{0, 3}, Limits{{2, 9, 1, 2, 2, 3, 4, 2, 5}});
    EXPECT_LE(problem.rows, 2);
    EXPECT_LE(problem.layout.real_length(), 9);
    // A row's padding may be one more, behind or between.
    EXPECT_LE(problem.documents.documents(), 2 * problem.rows);
    EXPECT_LE(problem.config.groups, 2);
    EXPECT_LE(problem.config.heads, 4);
    EXPECT_LE(problem.config.head_dim, 3);
    EXPECT_LE(problem.config.d_state, 4);
    EXPECT_LE(problem.config.d_conv, 2);
    EXPECT_LE(problem.config.chunk_size, 5);
  }
}

// ---- the search for the smallest failure ----

using Pair = std::array<std::int64_t, 2>;

TEST(Shrink, FindsTheSmallest) {
  EXPECT_EQ(shrink<2>({200, 12}, {0, 1}, [](const Pair& sizes) { return sizes[0] >= 37 && sizes[1] >= 3; }),
            (Pair{37, 3}));
  EXPECT_EQ(shrink<2>({200, 12}, {0, 1}, [](const Pair&) { return true; }), (Pair{0, 1}));
  EXPECT_EQ(shrink<2>({200, 12}, {0, 1}, [](const Pair&) { return false; }), (Pair{200, 12}));
}

TEST(Shrink, TheResultFailsAlsoWhereFailuresHaveGaps) {
  const auto odd = [](const Pair& sizes) { return sizes[0] % 2 == 1 && sizes[0] * sizes[1] > 20; };
  const Pair found = shrink<2>({199, 12}, {0, 1}, odd);
  EXPECT_TRUE(odd(found));
  EXPECT_LT(found[0] * found[1], 199);
}

TEST(Shrink, AsksTheSameEveryTimeAndNoLongerThanAllowed) {
  const auto asked = [](int attempts) {
    std::vector<Pair> all;
    shrink<2>(
        {200, 12}, {0, 1},
        [&all](const Pair& sizes) {
          all.push_back(sizes);
          return sizes[0] + sizes[1] > 50;
        },
        attempts);
    return all;
  };
  EXPECT_EQ(asked(300), asked(300));
  EXPECT_EQ(asked(5).size(), 5);
}

}  // namespace
