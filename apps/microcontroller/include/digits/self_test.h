// Does the model compute here what it computed when it was compiled?
#pragma once

#include <cstddef>

#include "digits/model.h"

namespace digits {

// `noise` is the sum of squared differences over all golden outputs, in output units.
struct SelfTest {
  Status status;
  bool passed;
  std::size_t invocations;
  std::size_t differing;
  float largest_difference;
  float noise;
};

// Runs the golden inputs through a loaded model and compares.
SelfTest RunSelfTest(Model& model);

}  // namespace digits
