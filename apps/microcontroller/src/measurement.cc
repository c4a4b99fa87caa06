#include "digits/measurement.h"

#include <algorithm>
#include <array>

#include "digits/self_test.h"

namespace digits {
namespace {

constexpr char kArtifactSha256[] = "d08d6f36ff4f3f1b3e52a0040102bd2f2ca89e847796dd9a959eeef61f48a3b1";

using Ticks = std::array<std::uint32_t, kTimedRuns>;

// Prints without the C library's formats: newlib-nano leaves floating point out of them.
class Line {
 public:
  explicit Line(void (*print)(const char*)) : print_(print) {}

  Line& operator<<(const char* text) {
    print_(text);
    return *this;
  }

  Line& operator<<(std::uint64_t number) {
    char digits[21];
    char* at = digits + 20;
    *at = '\0';
    do {
      *--at = static_cast<char>('0' + number % 10);
      number /= 10;
    } while (number > 0);
    return *this << at;
  }

  // Another field of the object: nanoseconds as milliseconds with six decimals.
  void Milliseconds(const char* name, std::uint64_t nanoseconds) {
    *this << ", \"" << name << "\": " << nanoseconds / 1'000'000 << ".";
    for (std::uint64_t unit = 100'000; unit > 0; unit /= 10) {
      *this << nanoseconds / unit % 10;
    }
  }

 private:
  void (*print_)(const char*);
};

std::uint64_t Nanoseconds(std::uint64_t ticks, const Clock& clock) {
  // 2^32 ticks times 10^9 stay below 2^62.
  return ticks * 1'000'000'000 / clock.hertz;
}

// The quantile of sorted ticks in nanoseconds, interpolated between ranks.
std::uint64_t Percentile(const Ticks& sorted, std::size_t percent, const Clock& clock) {
  const std::size_t position = percent * (kTimedRuns - 1);
  const std::size_t below = position / 100, rest = position % 100;
  const std::uint64_t low = Nanoseconds(sorted[below], clock);
  const std::uint64_t high = Nanoseconds(sorted[std::min(below + 1, kTimedRuns - 1)], clock);
  return low + (high - low) * rest / 100;
}

std::uint32_t TimeInvoke(Model& model, const Clock& clock, Status& status) {
  const std::uint32_t start = clock.read();
  status = model.Invoke();
  return clock.read() - start;
}

}  // namespace

Status Measure(Model& model, const Clock& clock, const Board& board, void (*print)(const char*)) {
  Status status;
  const std::uint32_t load_start = clock.read();
  status = model.Load();
  const std::uint32_t load = clock.read() - load_start;
  if (status != Status::kOk) return status;
  const std::uint32_t first = TimeInvoke(model, clock, status);
  for (std::size_t i = 0; status == Status::kOk && i < kWarmupRuns; ++i) {
    TimeInvoke(model, clock, status);
  }
  Ticks ticks{};
  for (std::uint32_t& tick : ticks) {
    if (status == Status::kOk) tick = TimeInvoke(model, clock, status);
  }
  if (status != Status::kOk) return status;
  std::sort(ticks.begin(), ticks.end());
  const SelfTest self_test = RunSelfTest(model);
  if (self_test.status != Status::kOk) return self_test.status;
  Line line(print);
  line << "{\"schema_version\": 1, \"artifact_sha256\": \"" << kArtifactSha256;
  line << "\", \"device\": \"" << board.device;
  line << "\", \"identity\": {\"runtime\": \"tflite-micro\", \"version\": \"";
  line << board.runtime_version << "\", \"platform\": \"" << board.platform;
  line << "\", \"unit\": \"cpu\", \"threads\": 1}, \"batch_size\": 1";
  line << ", \"warmup_runs\": " << std::uint64_t{kWarmupRuns};
  line << ", \"runs\": " << std::uint64_t{kTimedRuns};
  line << ", \"measured_by\": \"edgesdk integrate --app microcontroller\"";
  line.Milliseconds("load_ms", Nanoseconds(load, clock));
  line.Milliseconds("first_ms", Nanoseconds(first, clock));
  line.Milliseconds("minimum_ms", Nanoseconds(ticks.front(), clock));
  line.Milliseconds("p50_ms", Percentile(ticks, 50, clock));
  line.Milliseconds("p90_ms", Percentile(ticks, 90, clock));
  line.Milliseconds("p99_ms", Percentile(ticks, 99, clock));
  line << ", \"peak_memory\": {\"counts\": \"arena\", \"bytes\": ";
  line << std::uint64_t{model.arena_used_bytes()} << "}";
  line << ", \"self_test\": {\"status\": \"" << (self_test.passed ? "passed" : "failed");
  line << "\", \"samples\": " << std::uint64_t{self_test.invocations * 1};
  line << ", \"detail\": \"" << std::uint64_t{self_test.differing} << " values differ\"}}\n";
  return Status::kOk;
}

}  // namespace digits
