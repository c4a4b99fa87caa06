#pragma once

#include <cstddef>
#include <cstdint>

#include "tensorflow/lite/c/common.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace tflite {

class MicroOpResolver {};

class MicroInterpreter {
 public:
  MicroInterpreter(const Model* model, const MicroOpResolver& resolver, std::uint8_t* arena,
                   std::size_t arena_bytes);
  TfLiteStatus AllocateTensors();
  TfLiteStatus Invoke();
  std::size_t inputs_size() const;
  std::size_t outputs_size() const;
  TfLiteTensor* input(std::size_t index);
  TfLiteTensor* output(std::size_t index);
  std::size_t arena_used_bytes() const;
};

}  // namespace tflite
