// Times the model with a counter that the board has, and tells it as one line of JSON.
#pragma once

#include <cstddef>
#include <cstdint>

#include "digits/model.h"

namespace digits {

constexpr std::size_t kWarmupRuns = 3;
constexpr std::size_t kTimedRuns = 50;

// `read` counts up at `hertz` and may wrap: one inference must take less than 2^32 ticks.
struct Clock {
  std::uint32_t (*read)();
  std::uint32_t hertz;
};

// What the JSON says of the machine. Text is written as it is, so it holds no quote or backslash.
struct Board {
  const char* device;
  const char* platform;         // core and kernels, as in "cortex-m7, cmsis-nn"
  const char* runtime_version;  // of the TFLM library that is linked
};

// Loads and times the model, and calls print(text) with pieces of one line that ends in '\n'.
Status Measure(Model& model, const Clock& clock, const Board& board, void (*print)(const char*));

}  // namespace digits
