// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/comm/mpi/mpi_backend.hpp>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <krait/comm/mpi/check.hpp>
#include <krait/comm/mpi/mpi_communicator.hpp>
#include <krait/comm/mpi/world.hpp>
#include <krait/core/error.hpp>

namespace krait {
namespace impl {
namespace {

bool mpi_is_over() noexcept {
  int finalized = 0;
  return MPI_Finalized(&finalized) != MPI_SUCCESS || finalized != 0;
}

class MpiMessages final : public Messages {
 public:
  MpiMessages(std::shared_ptr<MpiHandle> comm, int tag, std::int64_t limit)
      : comm_(std::move(comm)), tag_(tag), limit_(limit) {}
  MpiMessages(const MpiMessages&) = delete;
  MpiMessages& operator=(const MpiMessages&) = delete;
  ~MpiMessages() override { abandon(); }

  void receive(int peer, std::byte* data, std::int64_t bytes) override {
    for_each_piece(bytes, [&](std::int64_t offset, int piece) {
      KRAIT_CHECK_MPI(
          MPI_Irecv(data + offset, piece, MPI_BYTE, peer, tag_, comm_->get(), add({"receive", peer, piece})));
    });
  }

  void send(int peer, const std::byte* data, std::int64_t bytes) override {
    for_each_piece(bytes, [&](std::int64_t offset, int piece) {
      KRAIT_CHECK_MPI(MPI_Isend(data + offset, piece, MPI_BYTE, peer, tag_, comm_->get(), add({"send", peer, piece})));
    });
  }

  void barrier() { KRAIT_CHECK_MPI(MPI_Ibarrier(comm_->get(), add({"barrier", -1, 0}))); }

  bool test() override {
    if (requests_.empty()) return true;
    int done = 0;
    statuses_.resize(requests_.size());
    const int code = MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, statuses_.data());
    check(code, "MPI_Testall");
    if (done != 0) check_sizes();
    return done != 0;
  }

  void wait() override {
    if (requests_.empty()) return;
    statuses_.resize(requests_.size());
    check(MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), statuses_.data()), "MPI_Waitall");
    check_sizes();
  }

  bool abandon() noexcept override {
    if (requests_.empty() || mpi_is_over()) return true;
    bool free = true;
    for (std::size_t i = 0; i < requests_.size(); ++i) {
      if (requests_[i] == MPI_REQUEST_NULL) continue;
      if (pieces_[i].is_receive()) {
        MPI_Cancel(&requests_[i]);
        MPI_Wait(&requests_[i], MPI_STATUS_IGNORE);
      } else {
        int done = 0;
        MPI_Test(&requests_[i], &done, MPI_STATUS_IGNORE);
        free = free && (done != 0 || pieces_[i].bytes == 0);
      }
    }
    return free;
  }

 private:
  struct Piece {
    const char* kind;
    int peer;
    int bytes;
    [[nodiscard]] bool is_receive() const { return kind[0] == 'r'; }
  };

  template <class Action>
  void for_each_piece(std::int64_t bytes, Action&& action) {
    for (std::int64_t offset = 0; offset < bytes; offset += limit_) {
      action(offset, static_cast<int>(std::min(limit_, bytes - offset)));
    }
  }

  MPI_Request* add(const Piece& piece) {
    pieces_.push_back(piece);
    requests_.push_back(MPI_REQUEST_NULL);
    return &requests_.back();
  }

  /// Which of the messages failed stands in the statuses.
  void check(int code, const char* call) const {
    if (code == MPI_SUCCESS) return;
    if (code == MPI_ERR_IN_STATUS) {
      for (std::size_t i = 0; i < statuses_.size(); ++i) {
        const int one = statuses_[i].MPI_ERROR;
        KRAIT_REQUIRE(CommError, one == MPI_SUCCESS || one == MPI_ERR_PENDING, call, " failed: ", describe(pieces_[i]),
                      ": ", mpi_text(one));
      }
    }
    check_mpi(code, call, std::source_location::current());
  }

  /// MPI takes a message that is too short for a good one.
  void check_sizes() {
    for (std::size_t i = 0; i < statuses_.size(); ++i) {
      if (!pieces_[i].is_receive()) continue;
      int bytes = 0;
      KRAIT_CHECK_MPI(MPI_Get_count(&statuses_[i], MPI_BYTE, &bytes));
      KRAIT_REQUIRE(CommError, bytes == pieces_[i].bytes, "krait::comm[mpi]: ", describe(pieces_[i]), ": got ", bytes,
                    " bytes");
    }
    requests_.clear();
  }

  static std::string describe(const Piece& piece) {
    if (piece.peer < 0) return piece.kind;
    return std::string(piece.kind) + " of " + std::to_string(piece.bytes) + " bytes " +
           (piece.is_receive() ? "from" : "to") + " rank " + std::to_string(piece.peer);
  }

  std::shared_ptr<MpiHandle> comm_;
  int tag_;
  std::int64_t limit_;
  std::vector<Piece> pieces_;
  std::vector<MPI_Request> requests_;
  std::vector<MPI_Status> statuses_;
};

MPI_Comm duplicate(MPI_Comm comm) {
  MPI_Comm copy = MPI_COMM_NULL;
  KRAIT_CHECK_MPI(MPI_Comm_dup(comm, &copy));
  return copy;
}

}  // namespace

MpiHandle::MpiHandle(MPI_Comm own) : comm_(own) { KRAIT_CHECK_MPI(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN)); }

MpiHandle::~MpiHandle() {
  if (!mpi_is_over()) MPI_Comm_free(&comm_);
}

MpiBackend::MpiBackend(MPI_Comm own) : comm_(std::make_shared<MpiHandle>(own)) {
  KRAIT_CHECK_MPI(MPI_Comm_rank(own, &place_.rank));
  KRAIT_CHECK_MPI(MPI_Comm_size(own, &place_.size));
}

std::unique_ptr<Messages> MpiBackend::open(int tag, std::int64_t limit) {
  return std::make_unique<MpiMessages>(comm_, tag, limit);
}

std::unique_ptr<Messages> MpiBackend::barrier() {
  auto messages = std::make_unique<MpiMessages>(comm_, 0, 1);
  messages->barrier();
  return messages;
}

std::shared_ptr<Backend> MpiBackend::split(int color, int key) {
  MPI_Comm part = MPI_COMM_NULL;
  KRAIT_CHECK_MPI(MPI_Comm_split(comm_->get(), color, key, &part));
  return std::make_shared<MpiBackend>(part);
}

std::shared_ptr<Backend> mpi_world() {
  int initialized = 0;
  KRAIT_CHECK_MPI(MPI_Initialized(&initialized));
  if (initialized == 0 || mpi_is_over()) return nullptr;
  return std::make_shared<MpiBackend>(duplicate(MPI_COMM_WORLD));
}

}  // namespace impl

Communicator mpi_communicator(MPI_Comm comm) {
  KRAIT_REQUIRE(ConfigError, comm != MPI_COMM_NULL, "krait::mpi_communicator: comm is MPI_COMM_NULL");
  return Communicator(std::make_shared<impl::MpiBackend>(impl::duplicate(comm)));
}

}  // namespace krait
