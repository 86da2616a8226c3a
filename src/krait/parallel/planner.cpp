// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/planner.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <optional>
#include <utility>

#include <krait/core/error.hpp>
#include <krait/layout/head_partition.hpp>
#include <krait/ops/causal_conv1d_input.hpp>
#include <krait/parallel/head_blocks.hpp>
#include <krait/parallel/relay.hpp>
#include <krait/parallel/state_exchange_form.hpp>

namespace krait {
namespace {

/// Reads and writes of the convolution's channels: in and out; backward the input and two gradients.
constexpr double conv_passes_forward = 2;
constexpr double conv_passes_backward = 3;
/// Reads and writes of a state when a map is applied to it, S = alpha S + E.
constexpr double apply_passes = 3;
/// The same when two maps are composed into the window and into the prefix of a segment.
constexpr double compose_passes = 6;
/// Of the states of a segment beside that. Forward: its summary is written, what enters is read, and copied to be kept.
/// Backward: that is copied back and read, the summary of gradients is written, what arrives is put where the scan
/// reads it, and read.
constexpr double state_passes_forward = 2;
constexpr double state_passes_backward = 2 + 3 + 4;

/// Exchanges of states whose times differ by less are alike: the model does not know when ranks get their turn.
constexpr double alike = 1.05;

/// What can be counted, with room for a few more factors below 2^63.
constexpr double most_bytes = 0x1p58;

std::int64_t steps_of_doubling(std::int64_t segments) {
  std::int64_t steps = 0;
  while ((std::int64_t{1} << steps) < segments) ++steps;
  return steps;
}

/// Bytes and messages that each rank sends.
struct Sent {
  std::vector<std::int64_t> bytes;
  std::vector<std::int64_t> messages;

  explicit Sent(int ranks) : bytes(static_cast<std::size_t>(ranks)), messages(bytes) {}

  void add(int rank, std::int64_t more_bytes, std::int64_t more_messages) {
    bytes[static_cast<std::size_t>(rank)] += more_bytes;
    messages[static_cast<std::size_t>(rank)] += more_messages;
  }
  void add(const Sent& other) {
    for (std::size_t r = 0; r < bytes.size(); ++r) {
      bytes[r] += other.bytes[r];
      messages[r] += other.messages[r];
    }
  }
  [[nodiscard]] std::int64_t most_bytes() const { return *std::max_element(bytes.begin(), bytes.end()); }
  [[nodiscard]] std::int64_t most_messages() const { return *std::max_element(messages.begin(), messages.end()); }
};

/// What ranks send when something travels with the tokens, and when gradients travel the other way.
struct BothWays {
  Sent ascending;
  Sent descending;

  explicit BothWays(int ranks) : ascending(ranks), descending(ranks) {}

  void add(int from, int to, std::int64_t bytes, std::int64_t messages) {
    ascending.add(from, bytes, messages);
    descending.add(to, bytes, messages);
  }
  /// The same in both directions.
  void add_each(int rank, std::int64_t bytes, std::int64_t messages) { add(rank, rank, bytes, messages); }
};

/// An exchange of state passing: what is sent, how long it takes in one direction, what memory it needs.
struct Exchanged {
  BothWays sent;
  double seconds = 0;
  double under_way = 0;  ///< the part of it in which messages travel and nobody has to look after them
  std::int64_t memory = 0;
};

/// Counts the messages of ranks whose segments send: all that go from one rank to another in one step are one message.
class Partners {
 public:
  explicit Partners(int ranks) : seen_(static_cast<std::size_t>(ranks), -1) {}
  /// True when `rank` sends to `other` for the first time in its turn `turn`.
  bool is_new(std::int64_t turn, int other) {
    return std::exchange(seen_[static_cast<std::size_t>(other)], turn) != turn;
  }

 private:
  std::vector<std::int64_t> seen_;
};

/// What the formulas share.
struct Model {
  const Machine& machine;
  const Workload& work;
  const SequenceOperatorConfig& config;
  const Sharding& sharding;

  [[nodiscard]] std::int64_t ranks() const { return sharding.ranks(); }
  /// Bytes of one number per row.
  [[nodiscard]] std::int64_t number() const { return work.batch * work.scalar_bytes; }
  /// Bytes of a segment's state, and of its map.
  [[nodiscard]] std::int64_t state_bytes() const {
    return work.batch * work.accumulator_bytes * config.d_inner() * config.d_state;
  }
  [[nodiscard]] std::int64_t map_bytes() const {
    return state_bytes() + work.batch * work.accumulator_bytes * config.heads;
  }

  [[nodiscard]] impl::StateMapShape maps() const {
    return {.rows = work.batch, .heads = config.heads, .state_size = config.head_dim * config.d_state};
  }
  /// Blocks of heads whose states travel by themselves.
  [[nodiscard]] std::int64_t head_blocks(StateExchange exchange) const {
    return impl::head_blocks(config, exchange, sharding.segments(), maps(), work.accumulator_bytes, work.threads);
  }

  [[nodiscard]] double network_seconds(double messages, double bytes) const {
    return messages * machine.latency + bytes / machine.network_bandwidth;
  }
  /// Of an exchange: that of the rank which sends most.
  [[nodiscard]] double network_seconds(const Sent& sent) const {
    return network_seconds(static_cast<double>(sent.most_messages()), static_cast<double>(sent.most_bytes()));
  }
  [[nodiscard]] double copy_seconds(double bytes) const { return bytes / machine.memory_bandwidth; }

  /// Part of the threads' time that the scan of so many heads uses: rows times heads are shared out among the threads;
  /// where there are more than two threads for each, the scan cuts rows into segments, which are walked again for their
  /// summaries.
  [[nodiscard]] double efficiency(std::int64_t heads) const {
    const std::int64_t teams = std::max<std::int64_t>(1, work.batch * heads);
    const auto [cuts, rounds] = impl::ScanShare(teams, work.threads);
    const double busy = static_cast<double>(teams * cuts) / static_cast<double>(rounds * work.threads);
    return cuts > 1 ? busy / (1 + machine.scan_flops / machine.summary_flops) : busy;
  }

  /// Convolution and scan of `tokens` tokens of each row, forward.
  [[nodiscard]] double forward_seconds(std::int64_t tokens, std::int64_t heads, std::int64_t conv_channels) const {
    const auto pass = static_cast<double>(number() * tokens * conv_channels);
    return scan_seconds(tokens, heads, machine.scan_flops) + conv_passes_forward * pass / machine.conv_bandwidth;
  }
  /// The same, and backward if the work has one.
  [[nodiscard]] double layer_seconds(std::int64_t tokens, std::int64_t heads, std::int64_t conv_channels) const {
    const auto pass = static_cast<double>(number() * tokens * conv_channels);
    const double conv = conv_passes_forward * pass / machine.conv_bandwidth;
    double seconds = forward_seconds(tokens, heads, conv_channels);
    if (work.backward) {
      seconds += scan_seconds(tokens, heads, machine.scan_backward_flops) +
                 conv_passes_backward * pass / machine.conv_backward_bandwidth;
      if (work.saving == Saving::lean) seconds += conv;  // again
    }
    return seconds;
  }
  [[nodiscard]] double scan_seconds(std::int64_t tokens, std::int64_t heads, double flops) const {
    return operations(heads, static_cast<double>(tokens)) / (flops * efficiency(heads));
  }
  /// Of the rank that visits most tokens. Which documents end where is not known here: every segment hands on but the
  /// last one of the row, or the first one where gradients go the other way.
  [[nodiscard]] double summary_seconds(bool descending) const {
    const auto visited = [&](std::int64_t tokens) {
      if (work.decay == Decay::slow) return static_cast<double>(tokens);
      return impl::InitialDecay::visited_tokens(tokens, config.chunk_size, work.accumulator_bytes);
    };
    std::vector<double> visits(static_cast<std::size_t>(ranks()));
    if (sharding.has_links()) {
      std::map<std::int64_t, double> known;  // segments have few lengths
      const auto segments = static_cast<std::size_t>(sharding.segments());
      for (std::size_t i = descending ? 1 : 0; i + (descending ? 0 : 1) < segments; ++i) {
        const Sharding::Link& link = sharding.links()[i];
        const auto [found, is_new] = known.try_emplace(link.tokens);
        if (is_new) found->second = visited(link.tokens);
        visits[static_cast<std::size_t>(link.owner)] += found->second;
      }
    } else {
      for (int r = 0; r < ranks(); ++r) {
        const std::int64_t segments = std::max<std::int64_t>(1, sharding.segments(r));
        visits[static_cast<std::size_t>(r)] =
            static_cast<double>(segments) * visited((sharding.tokens(r) + segments - 1) / segments);
      }
    }
    return operations(config.heads, *std::max_element(visits.begin(), visits.end())) /
           (machine.summary_flops * efficiency(config.heads));
  }
  [[nodiscard]] double operations(std::int64_t heads, double tokens) const {
    return 4.0 * static_cast<double>(heads * config.head_dim * config.d_state) * static_cast<double>(work.batch) *
           tokens;
  }

  /// Memory of a call that keeps its tokens: what enters and leaves, the output of the convolution, and its gradient.
  [[nodiscard]] std::int64_t layer_memory() const {
    const std::int64_t in = config.input_width();
    const std::int64_t out = config.d_inner();
    const std::int64_t conv = config.conv_channels();
    return number() * sharding.most_tokens() * (work.backward ? 2 * in + out + 2 * conv : in + out + conv);
  }

  /// The same where a forward convolves in place and its output takes the place of x.
  [[nodiscard]] std::int64_t layer_memory_in_place() const {
    if (work.backward) return layer_memory();
    const std::int64_t block = impl::conv_block_of(work.on_device);
    const std::int64_t blocks = (work.batch * sharding.most_tokens() + block - 1) / block;
    return number() * sharding.most_tokens() * config.input_width() +
           work.scalar_bytes * blocks * (config.d_conv - 1) * config.conv_channels();
  }
};

Prediction impossible(Prediction prediction, std::string why) {
  prediction.impossible = std::move(why);
  return prediction;
}

Prediction local(const Model& model) {
  Prediction result{.strategy = Strategy::local};
  if (model.ranks() > 1) return impossible(result, "local runs on one rank");
  result.seconds = model.layer_seconds(model.sharding.length(), model.config.heads, model.config.conv_channels());
  result.memory_bytes_per_rank = model.layer_memory();
  return result;
}

// ---- hidden-parallel ----

/// One exchange of tokens for heads: a rank sends its tokens of the columns of every other rank that has any.
template <class Width>
Sent to_heads(const Model& model, const Width& local_width) {
  std::int64_t all = 0;
  std::int64_t receivers = 0;
  for (int r = 0; r < model.ranks(); ++r) {
    all += local_width(r);
    receivers += local_width(r) > 0 ? 1 : 0;
  }
  Sent sent(model.sharding.ranks());
  for (int r = 0; r < model.ranks(); ++r) {
    const std::int64_t tokens = model.sharding.tokens(r);
    if (tokens == 0) continue;
    sent.add(r, model.number() * tokens * (all - local_width(r)), receivers - (local_width(r) > 0 ? 1 : 0));
  }
  return sent;
}

/// The way back: a rank sends its columns of all tokens that others hold.
template <class Width>
Sent to_sequence(const Model& model, const Width& local_width) {
  std::int64_t receivers = 0;
  for (int r = 0; r < model.ranks(); ++r) receivers += model.sharding.tokens(r) > 0 ? 1 : 0;
  Sent sent(model.sharding.ranks());
  for (int r = 0; r < model.ranks(); ++r) {
    if (local_width(r) == 0) continue;
    const std::int64_t tokens = model.sharding.tokens(r);
    sent.add(r, model.number() * (model.sharding.length() - tokens) * local_width(r), receivers - (tokens > 0 ? 1 : 0));
  }
  return sent;
}

/// What an error says, without the function before and the place in the source behind.
std::string sentence(const std::string& what) {
  const std::size_t begin = what.find(": ") + 2;
  return what.substr(begin, what.rfind(" [") - begin);
}

std::optional<HeadPartition> partition_of(const Model& model, std::string& why_not) {
  const SequenceOperatorConfig& config = model.config;
  try {
    return HeadPartition({0, model.sharding.ranks()}, {config.heads, config.head_dim, config.groups, config.d_state},
                         config.divisibility);
  } catch (const ConfigError& error) {
    why_not = sentence(error.what());
    return {};
  }
}

Prediction hidden_parallel(const Model& model) {
  Prediction result{.strategy = Strategy::hidden_parallel};
  const std::optional<HeadPartition> heads = partition_of(model, result.impossible);
  if (!heads) return result;

  // Widths of the blocks of heads of a forward, then of the parts of a backward, then of all heads.
  const std::int64_t blocks = impl::shared_head_blocks(model.config, model.sharding.ranks(), model.work.on_device);
  const auto inner_of = [&](std::int64_t k) {
    return [&heads, k, blocks](int r) { return heads->block(r, k, blocks).count * heads->shape().head_dim; };
  };
  const auto channels_of = [&](std::int64_t k) {
    return
        [&heads, k, inner = inner_of(k)](int r) { return inner(r) + (k == 0 ? 2 * heads->group_width_local(r) : 0); };
  };
  const auto projection_of = [&](std::int64_t k) {
    return [&heads, k, blocks, channels = channels_of(k)](int r) {
      return channels(r) + heads->block(r, k, blocks).count;
    };
  };
  const bool lean = model.work.saving == Saving::lean;
  const std::int64_t parts = HeadPartition::backward_parts(blocks);
  const auto heads_in = [&](std::int64_t k, int r) {
    return k < blocks ? heads->block(r, k, blocks).count : std::int64_t{0};
  };
  const auto gradients_of = [&](std::int64_t k) {  // of x | B | C | dt
    return [&heads, &heads_in, k, parts](int r) {
      return heads_in(k, r) * (heads->shape().head_dim + 1) + (k + 1 == parts ? 2 * heads->group_width_local(r) : 0);
    };
  };
  const auto entering_of = [&](std::int64_t k) {
    return [&heads, &heads_in, k, lean, gradients = gradients_of(k)](int r) {
      return (lean ? gradients(r) : 0) + heads_in(k, r) * heads->shape().head_dim;
    };
  };
  const auto projection = [&](int r) { return heads->projection_width_local(r, false); };
  const auto sum = [&](const auto& width) {
    std::int64_t all = 0;
    for (int r = 0; r < model.ranks(); ++r) all += width(r);
    return all;
  };
  const bool backward = model.work.backward;
  std::vector<Sent> exchanges;
  for (std::int64_t k = 0; k < blocks; ++k) {
    exchanges.push_back(to_heads(model, projection_of(k)));
    exchanges.push_back(to_sequence(model, inner_of(k)));
  }
  const auto seconds_from = [&](std::size_t first) {
    double seconds = 0;
    for (std::size_t i = first; i < exchanges.size(); ++i) seconds += model.network_seconds(exchanges[i]);
    return seconds;
  };
  const double under_way = seconds_from(0);
  const std::size_t of_forward = exchanges.size();
  for (std::int64_t k = 0; backward && k < blocks; ++k) {
    exchanges.push_back(to_heads(model, entering_of(k)));
    exchanges.push_back(to_sequence(model, gradients_of(k)));
  }
  const double under_way_backward = seconds_from(of_forward);
  if (backward && parts > blocks) {  // B and C by themselves
    if (lean) exchanges.push_back(to_heads(model, entering_of(blocks)));
    exchanges.push_back(to_sequence(model, gradients_of(blocks)));
  }

  // The rank with most of everything; with heads shared out evenly there is one.
  const auto most = [&](const auto& width) {
    std::int64_t largest = 0;
    for (int r = 0; r < model.ranks(); ++r) largest = std::max<std::int64_t>(largest, width(r));
    return largest;
  };
  const std::int64_t most_heads = most([&](int r) { return heads->heads(r); });
  const std::int64_t most_channels = most([&](int r) { return heads->conv_channels_local(r); });
  const std::int64_t widest = most(projection);
  const std::int64_t length = model.sharding.length();
  const std::int64_t tokens = model.sharding.most_tokens();
  const std::int64_t packed = sum(projection);
  const std::int64_t in = model.config.input_width();
  const std::int64_t out = model.config.d_inner();
  const std::int64_t most_inner = most_heads * model.config.head_dim;

  result.seconds = model.layer_seconds(length, most_heads, most_channels);
  if (model.ranks() > 1) {
    // What is packed, and unpacked, is read and written.
    std::int64_t columns = in + packed + 2 * out;
    if (backward) columns += (lean ? in + packed : 0) + 2 * out + packed + in;
    result.seconds += static_cast<double>(model.number() * tokens * columns) / model.machine.pack_bandwidth;
  }
  Sent sent(model.sharding.ranks());
  for (const Sent& exchange : exchanges) sent.add(exchange);
  // What all blocks but one send each way travels beside work.
  const double work = model.forward_seconds(length, most_heads, most_channels);
  const double work_backward = model.layer_seconds(length, most_heads, most_channels) - work;
  result.seconds += seconds_from(0) - (std::min(under_way, work) + std::min(under_way_backward, work_backward)) *
                                          static_cast<double>(blocks - 1) / static_cast<double>(blocks);
  result.bytes_sent_per_rank = sent.most_bytes();
  result.messages = sent.most_messages();

  if (model.ranks() == 1) {
    result.memory_bytes_per_rank = model.layer_memory();
    return result;
  }
  // The blocks of HiddenParallel, which lie in the tensors of its caller as far as these reach. First the forward.
  const auto of_parts = [&](std::int64_t count, const auto& size) {
    std::vector<std::int64_t> sizes;
    for (std::int64_t k = 0; k < count; ++k) sizes.push_back(size(k));
    return sizes;
  };
  const auto of_blocks = [&](const auto& size) { return of_parts(blocks, size); };
  const impl::Relay exchanged(of_blocks([&](std::int64_t k) { return tokens * sum(projection_of(k)); }),
                              of_blocks([&](std::int64_t k) { return length * most(channels_of(k)); }));
  const impl::Relay arrived(of_blocks([&](std::int64_t k) { return length * most(projection_of(k)); }),
                            of_blocks([&](std::int64_t k) { return tokens * sum(inner_of(k)); }));
  std::int64_t memory =
      std::max(tokens * in, arrived.size) + std::max(tokens * out, length * most_inner) + exchanged.size;
  if (backward) {
    const std::int64_t saved = lean ? 0 : length * (widest + most_channels);
    const auto channels_in = [&](std::int64_t k) {
      return [&heads_in, k, gradients = gradients_of(k)](int r) { return gradients(r) - heads_in(k, r); };
    };
    const auto last_first = [&](std::int64_t turn) { return (turn + parts - 1) % parts; };  // B and C enter first
    const impl::Relay worked_on(
        of_parts(parts, [&](std::int64_t turn) { return tokens * sum(entering_of(last_first(turn))); }),
        of_parts(parts, [&](std::int64_t turn) {
          return length * (most(gradients_of(last_first(turn))) + most(channels_in(last_first(turn))));
        }));
    const impl::Relay gradients(of_parts(parts, [&](std::int64_t k) { return length * most(entering_of(k)); }),
                                of_parts(parts, [&](std::int64_t k) { return tokens * sum(gradients_of(k)); }));
    memory =
        std::max(memory + saved, 2 * tokens * in + saved + std::max(tokens * out, gradients.size) + worked_on.size);
  }
  result.memory_bytes_per_rank = model.number() * memory;
  return result;
}

// ---- state passing ----

/// Rows before each segment that the convolution needs, from the ranks that hold them.
BothWays halo(const Model& model) {
  const std::int64_t rows = model.config.d_conv - 1;
  BothWays sent(model.sharding.ranks());
  const std::vector<Sharding::Link>& links = model.sharding.links();
  if (!model.sharding.has_links()) {
    for (int r = 0; r < model.ranks(); ++r) {
      const std::int64_t most = model.sharding.segments(r) * rows;
      sent.add_each(r, most, std::min(most, model.ranks() - 1));
    }
    return sent;
  }
  std::vector<std::pair<int, int>> pairs;
  for (std::size_t s = 0; s < links.size(); ++s) {
    std::int64_t missing = rows;
    for (std::size_t from = s; from-- > 0 && missing > 0;) {
      const std::int64_t count = std::min(missing, links[from].tokens);
      missing -= count;
      if (links[from].owner == links[s].owner) continue;
      sent.add(links[from].owner, links[s].owner, count, 0);
      pairs.emplace_back(links[from].owner, links[s].owner);
    }
  }
  std::sort(pairs.begin(), pairs.end());
  pairs.erase(std::unique(pairs.begin(), pairs.end()), pairs.end());
  for (const auto& [from, to] : pairs) sent.add(from, to, 0, 1);
  return sent;
}

/// All maps to all ranks; each composes those before its last segment.
Exchanged all_gather(const Model& model) {
  const std::int64_t map = model.map_bytes();
  const std::int64_t others = model.ranks() - 1;
  Exchanged result{BothWays(model.sharding.ranks())};
  for (int r = 0; r < model.ranks(); ++r) {
    const std::int64_t segments = model.sharding.segments(r);
    if (segments > 0) result.sent.add_each(r, segments * map * others, others);
  }
  result.under_way = model.network_seconds(result.sent.ascending);
  result.seconds = result.under_way + model.copy_seconds(static_cast<double>(model.sharding.segments() * map));
  result.memory = model.sharding.segments() * map + model.sharding.most_segments() * (map + model.state_bytes());
  return result;
}

/// In the step of distance d = 1, 2, 4 ... segment s sends the map of the d segments up to it to segment s + d.
Exchanged doubling(const Model& model) {
  const std::int64_t map = model.map_bytes();
  const std::int64_t steps = steps_of_doubling(model.sharding.segments());
  const std::int64_t most_segments = model.sharding.most_segments();
  const std::vector<Sharding::Link>& links = model.sharding.links();
  Exchanged result{BothWays(model.sharding.ranks())};
  if (model.sharding.has_links()) {
    std::vector<std::vector<std::int64_t>> segments_of(static_cast<std::size_t>(model.ranks()));
    for (std::size_t s = 0; s < links.size(); ++s)
      segments_of[static_cast<std::size_t>(links[s].owner)].push_back(static_cast<std::int64_t>(s));
    Partners partners(model.sharding.ranks());
    std::int64_t turn = 0;
    for (std::int64_t step = 0; step < steps; ++step) {
      const std::int64_t distance = std::int64_t{1} << step;
      BothWays sent(model.sharding.ranks());
      for (int r = 0; r < model.ranks(); ++r, ++turn) {
        for (const std::int64_t s : segments_of[static_cast<std::size_t>(r)]) {
          if (s + distance >= model.sharding.segments()) continue;
          const int to = links[static_cast<std::size_t>(s + distance)].owner;
          if (to != r) sent.add(r, to, map, partners.is_new(turn, to) ? 1 : 0);
        }
      }
      result.under_way += model.network_seconds(sent.ascending);
      result.sent.ascending.add(sent.ascending);
      result.sent.descending.add(sent.descending);
    }
  } else {
    for (int r = 0; r < model.ranks(); ++r) {
      const std::int64_t segments = model.sharding.segments(r);
      result.sent.add_each(r, steps * segments * map, steps * std::min(segments, model.ranks() - 1));
    }
    result.under_way = model.network_seconds(result.sent.ascending);
  }
  result.seconds =
      result.under_way + model.copy_seconds(compose_passes * static_cast<double>(steps * most_segments * map));
  // Of every segment: its map, the windows it sends and receives, and what enters it.
  result.memory = most_segments * 4 * map;
  return result;
}

/// The state goes from segment to segment, the blocks of heads one behind the other.
Exchanged chain(const Model& model) {
  const std::int64_t state = model.state_bytes();
  const std::int64_t head_blocks = model.head_blocks(StateExchange::chain);
  std::int64_t blocks = 0;
  for (std::int64_t k = 0; k < head_blocks; ++k) {
    impl::StateMapShape shape = model.maps();
    shape.heads = impl::head_block_begin(k + 1, model.config.heads, head_blocks) -
                  impl::head_block_begin(k, model.config.heads, head_blocks);
    const std::int64_t heads = impl::chain_block(shape, model.work.accumulator_bytes);
    blocks += (shape.heads + heads - 1) / heads;
  }
  const std::vector<Sharding::Link>& links = model.sharding.links();
  Exchanged result{BothWays(model.sharding.ranks())};
  std::int64_t hops = 0;  // from one rank to another
  if (model.sharding.has_links()) {
    for (std::size_t s = 1; s < links.size(); ++s) {
      if (links[s].owner == links[s - 1].owner) continue;
      result.sent.add(links[s - 1].owner, links[s].owner, state, blocks);
      ++hops;
    }
  } else {
    for (int r = 0; r < model.ranks(); ++r)
      result.sent.add_each(r, model.sharding.segments(r) * state, model.sharding.segments(r) * blocks);
    hops = model.sharding.segments() - 1;
  }
  if (hops > 0) {
    const double block = static_cast<double>(state) / static_cast<double>(blocks);
    const double pipeline = static_cast<double>(hops + blocks - 1) *
                            (model.network_seconds(1, block) + model.copy_seconds(apply_passes * block));
    // A rank with many segments has more than one block at a time to send.
    result.seconds = std::max(pipeline, model.network_seconds(result.sent.ascending));
  }
  result.memory = model.sharding.most_segments() * (model.map_bytes() + state);
  return result;
}

Prediction state_passing(const Model& model, StateExchange exchange) {
  Prediction result{.strategy = Strategy::state_passing, .exchange = exchange};
  const double all_maps = static_cast<double>(model.sharding.segments()) * static_cast<double>(model.map_bytes());
  if (all_maps * static_cast<double>(model.ranks()) > most_bytes)
    return impossible(result, "its chain of " + std::to_string(model.sharding.segments()) + " segments is too long");
  const std::int64_t tokens = model.sharding.most_tokens();
  const std::int64_t heads = model.config.heads;
  result.seconds = model.layer_seconds(tokens, heads, model.config.conv_channels());
  result.memory_bytes_per_rank = model.layer_memory_in_place();
  if (model.sharding.segments() <= 1) return result;

  const Exchanged states = exchange == StateExchange::all_gather ? all_gather(model)
                           : exchange == StateExchange::doubling ? doubling(model)
                                                                 : chain(model);
  // Blocks of heads follow each other, and each has the same messages; those of the chain are counted there. Forward,
  // what all blocks but the last one send travels beside work.
  const std::int64_t blocks = exchange == StateExchange::chain ? 1 : model.head_blocks(exchange);
  const double summary = model.summary_seconds(/*descending=*/false);
  const double work = summary + model.scan_seconds(tokens, heads, model.machine.scan_flops);
  const double beside =
      std::min(states.under_way, work) * static_cast<double>(blocks - 1) / static_cast<double>(blocks);
  result.seconds += states.seconds - beside + summary;
  if (model.work.backward) result.seconds += states.seconds + model.summary_seconds(/*descending=*/true);
  result.seconds += model.copy_seconds((state_passes_forward + (model.work.backward ? state_passes_backward : 0)) *
                                       static_cast<double>(model.sharding.most_segments() * model.state_bytes()));

  const BothWays rows = halo(model);
  Sent sent(model.sharding.ranks());
  const auto add_halo = [&](Sent part, std::int64_t number_bytes) {
    for (std::int64_t& bytes : part.bytes) bytes *= number_bytes * model.config.conv_channels();
    sent.add(part);
    result.seconds += model.network_seconds(part);
  };
  const auto add_states = [&](Sent part) {
    for (std::int64_t& messages : part.messages) messages *= blocks;
    sent.add(part);
  };
  add_states(states.sent.ascending);
  add_halo(rows.ascending, model.number());
  if (model.work.backward) {
    add_states(states.sent.descending);
    add_halo(rows.descending, model.work.batch * model.work.accumulator_bytes);  // gradients of those rows
  }
  result.bytes_sent_per_rank = sent.most_bytes();
  result.messages = sent.most_messages();
  // The rows before a segment are packed, arrive, and become the state of its convolution. A backward has kept that,
  // and the state that entered; states and their gradients have two places each then.
  const std::int64_t row = model.work.batch * model.config.conv_channels();
  std::int64_t per_segment = (model.config.d_conv - 1) * row * 3 * model.work.scalar_bytes;
  if (model.work.backward) {
    per_segment += (model.config.d_conv - 1) * row * 4 * model.work.accumulator_bytes + 5 * model.state_bytes();
  }
  result.memory_bytes_per_rank += states.memory + model.sharding.most_segments() * per_segment;
  return result;
}

std::string text(const char* format, double value) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, format, value);
  return buffer;
}

std::string takes(const Prediction& prediction) {
  return text("%.3g ms, ", 1e3 * prediction.seconds) +
         text("%.3g MiB per rank", static_cast<double>(prediction.bytes_sent_per_rank) / (1 << 20));
}

}  // namespace

void Workload::validate() const {
  config.validate();
  const auto require = [](const char* name, double value, bool good, const char* expected) {
    KRAIT_REQUIRE(ConfigError, good, "krait::Workload: ", name, " is ", value, ", expected ", expected);
  };
  require("batch", static_cast<double>(batch), batch >= 0, "0 or more");
  require("scalar_bytes", static_cast<double>(scalar_bytes), scalar_bytes >= 1, "1 or more");
  require("accumulator_bytes", static_cast<double>(accumulator_bytes), accumulator_bytes >= 1, "1 or more");
  require("threads", static_cast<double>(threads), threads >= 1, "1 or more");
  const double bytes = static_cast<double>(batch) * static_cast<double>(sharding.length()) *
                       static_cast<double>(config.input_width()) * static_cast<double>(accumulator_bytes);
  require("batch * length * input_width * accumulator_bytes", bytes, bytes <= most_bytes, "at most 2^58");
  const double state = static_cast<double>(batch) * static_cast<double>(config.d_inner()) *
                       static_cast<double>(config.d_state) * static_cast<double>(accumulator_bytes);
  require("batch * d_inner * d_state * accumulator_bytes", state, state <= most_bytes, "at most 2^58");
}

std::string Prediction::name() const {
  const std::string plain = name_of(strategy);
  return strategy == Strategy::state_passing ? plain + ':' + name_of(exchange) : plain;
}

std::string Choice::explanation() const {
  std::string line = best().name() + ": " + takes(best());
  for (const Strategy strategy : {Strategy::local, Strategy::hidden_parallel, Strategy::state_passing}) {
    if (strategy == best().strategy) continue;
    const Prediction* fastest = nullptr;
    for (const Prediction& other : predictions) {
      if (other.strategy == strategy && (fastest == nullptr || other.seconds < fastest->seconds)) fastest = &other;
    }
    line += "; " + fastest->name();
    line += fastest->possible() ? " would take " + takes(*fastest) : " cannot run: " + fastest->impossible;
  }
  return line;
}

Planner::Planner(const Machine& machine) : machine_(machine) { machine_.validate(); }

std::vector<Prediction> Planner::predict(const Workload& workload) const {
  workload.validate();
  const Model model{machine_, workload, workload.config, workload.sharding};
  return {local(model), hidden_parallel(model), state_passing(model, StateExchange::all_gather),
          state_passing(model, StateExchange::doubling), state_passing(model, StateExchange::chain)};
}

Choice Planner::choose(const Workload& workload) const {
  return choose(workload, Strategy::automatic, StateExchange::automatic);
}

Choice Planner::choose(const Workload& workload, Strategy strategy, StateExchange exchange) const {
  const auto asked_for = [&](const Prediction& prediction) {
    return (strategy == Strategy::automatic || prediction.strategy == strategy) &&
           (exchange == StateExchange::automatic || prediction.strategy != Strategy::state_passing ||
            prediction.exchange == exchange);
  };
  Choice choice{.predictions = predict(workload)};
  const std::vector<Prediction>& all = choice.predictions;
  choice.winner = static_cast<std::size_t>(std::find_if(all.begin(), all.end(), asked_for) - all.begin());
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Prediction& best = choice.best();
    if (asked_for(all[i]) && all[i].possible() && (!best.possible() || all[i].seconds < best.seconds))
      choice.winner = i;
  }
  const Prediction fastest = choice.best();
  if (fastest.strategy != Strategy::state_passing || !fastest.possible()) return choice;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (asked_for(all[i]) && all[i].strategy == Strategy::state_passing && all[i].exchange == StateExchange::doubling &&
        all[i].seconds <= alike * fastest.seconds)
      choice.winner = i;
  }
  return choice;
}

}  // namespace krait
