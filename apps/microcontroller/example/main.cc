// Self-test, timing and one prediction; output goes to where TFLM's log goes.
#include "digits/cycle_counter.h"
#include "digits/measurement.h"
#include "digits/model.h"
#include "digits/self_test.h"
#include "tensorflow/lite/micro/micro_log.h"

#ifndef CLOCK_HZ
#error "CMake passes CLOCK_HZ, the core's clock: see README.md"
#endif

namespace {

digits::Model model;  // static: the arena is too large for most stacks

#ifdef DIGITS_HAS_CYCLE_COUNTER
void Print(const char* text) { MicroPrintf("%s", text); }
#endif

}  // namespace

int main() {
  using namespace digits;
  const Status status = model.Load();
  if (status != Status::kOk) {
    MicroPrintf("loading failed: %s", Text(status));
    return 1;
  }
  const SelfTest test = RunSelfTest(model);
  MicroPrintf("self-test %s: %d samples, %d values differ, %d bytes of arena used",
              test.passed ? "passed" : "FAILED", static_cast<int>(test.invocations),
              static_cast<int>(test.differing), static_cast<int>(model.arena_used_bytes()));
#ifdef DIGITS_HAS_CYCLE_COUNTER
  if (StartCycleCounter()) {
    const Clock clock{ReadCycleCounter, CLOCK_HZ};
    const Board board{DEVICE_NAME, PLATFORM_NAME, TFLM_VERSION};
    // A new model: Measure() times its loading, too.
    static Model timed;
    if (Measure(timed, clock, board, Print) != Status::kOk) return 1;
  }
#endif
  return test.passed ? 0 : 1;
}
