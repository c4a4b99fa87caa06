// Runs what is generated for the digits artifact on a PC. The interpreter here computes nothing: it
// knows the golden inputs and answers with the outputs beside them, shifted by the first argument.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "digits/measurement.h"
#include "digits/model.h"
#include "digits/self_test.h"
#include "golden.h"

namespace {

int shift = 0;
std::size_t invocations = 0;
digits::ImageTensor image[digits::kImageElements];
digits::LogitsTensor logits[digits::kLogitsElements];
constexpr TfLiteType kType = sizeof(digits::ImageTensor) == 1 ? kTfLiteInt8 : kTfLiteInt16;
TfLiteTensor input{kType, {reinterpret_cast<char*>(image)}, sizeof(image)};
TfLiteTensor output{kType, {reinterpret_cast<char*>(logits)}, sizeof(logits)};
digits::Model model, timed;

std::uint32_t Microseconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<std::uint32_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(now).count());
}

void Print(const char* text) { std::fputs(text, stdout); }

}  // namespace

namespace tflite {

MicroInterpreter::MicroInterpreter(const Model*, const MicroOpResolver&, std::uint8_t*,
                                   std::size_t) {}
TfLiteStatus MicroInterpreter::AllocateTensors() { return kTfLiteOk; }
std::size_t MicroInterpreter::inputs_size() const { return 1; }
std::size_t MicroInterpreter::outputs_size() const { return 1; }
TfLiteTensor* MicroInterpreter::input(std::size_t) { return &::input; }
TfLiteTensor* MicroInterpreter::output(std::size_t) { return &::output; }
std::size_t MicroInterpreter::arena_used_bytes() const { return 4321; }

TfLiteStatus MicroInterpreter::Invoke() {
  ++invocations;
  for (std::size_t i = 0; i < digits::kGoldenInvocations; ++i) {
    const auto* golden = digits::kGoldenImage + i * digits::kImageElements;
    if (std::memcmp(image, golden, sizeof(image)) != 0) continue;
    for (std::size_t j = 0; j < digits::kLogitsElements; ++j) {
      const int value = digits::kWantedLogits[i * digits::kLogitsElements + j] + shift;
      logits[j] = static_cast<digits::LogitsTensor>(value);  // wraps around
    }
    return kTfLiteOk;
  }
  return kTfLiteError;
}

}  // namespace tflite

int main(int, char** arguments) {
  shift = std::atoi(arguments[1]);
  if (model.Invoke() != digits::Status::kNotLoaded) return 1;
  std::printf("load %s\n", digits::Text(model.Load()));
  float pixels[digits::kImageElements];
  for (float& pixel : pixels) {
    if (std::scanf("%f", &pixel) != 1) return 2;
  }
  model.SetImage(pixels);
  std::printf("image");
  for (const auto value : image) std::printf(" %d", value);
  const digits::SelfTest test = digits::RunSelfTest(model);
  std::printf("\nself_test %d %zu %zu %g %g\n", test.passed, test.invocations, test.differing,
              test.largest_difference, test.noise);
  float scores[digits::kLogitsElements];
  model.GetLogits(scores);
  std::printf("logits");
  for (const float score : scores) std::printf(" %.9g", score);
  const digits::Prediction best = model.BestLogits();
  std::printf("\nbest %zu %s %.9g\n", best.index, best.label, best.score);
  const digits::Clock clock{Microseconds, 1'000'000};
  const digits::Board board{"a_pc", "x86-64, no kernels", "none"};
  if (digits::Measure(timed, clock, board, Print) != digits::Status::kOk) return 3;
  std::printf("invocations %zu\n", invocations);
  return 0;
}
