// Exactly the operators that the file uses: the linker leaves all other kernels out.
#pragma once

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

namespace digits {

using Operators = tflite::MicroMutableOpResolver<6>;

inline bool AddOperators(Operators& operators) {
  if (operators.AddAdd() != kTfLiteOk) return false;
  if (operators.AddConv2D() != kTfLiteOk) return false;
  if (operators.AddDepthwiseConv2D() != kTfLiteOk) return false;
  if (operators.AddFullyConnected() != kTfLiteOk) return false;
  if (operators.AddMean() != kTfLiteOk) return false;
  if (operators.AddPad() != kTfLiteOk) return false;
  return true;
}

}  // namespace digits
