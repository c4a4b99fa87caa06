#include "digits/model.h"

#include "digits/model_data.h"
#include "digits/sha256.h"
#include "operators.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace digits {
namespace {

template <typename T>
constexpr TfLiteType TypeOf() {
  if constexpr (std::is_same_v<T, float>) return kTfLiteFloat32;
  if constexpr (std::is_same_v<T, std::int8_t>) return kTfLiteInt8;
  if constexpr (std::is_same_v<T, std::uint8_t>) return kTfLiteUInt8;
  if constexpr (std::is_same_v<T, std::int16_t>) return kTfLiteInt16;
  if constexpr (std::is_same_v<T, std::int32_t>) return kTfLiteInt32;
  if constexpr (std::is_same_v<T, std::int64_t>) return kTfLiteInt64;
}

template <typename T>
bool Is(const TfLiteTensor* tensor, std::size_t elements) {
  return tensor != nullptr && tensor->type == TypeOf<T>() && tensor->bytes == elements * sizeof(T);
}

Operators& TheOperators() {
  static Operators operators;
  return operators;
}

}  // namespace

const char* Text(Status status) {
  switch (status) {
    case Status::kOk: return "ok";
    case Status::kModelDiffers: return "the model in flash is not the one that was compiled";
    case Status::kSchemaDiffers: return "the TFLM library is of another schema version";
    case Status::kOperatorMissing: return "the TFLM library lacks an operator";
    case Status::kArenaTooSmall: return "the arena is too small for this build of TFLM";
    case Status::kTensorsDiffer: return "the tensors of the file are not those of the manifest";
    case Status::kNotLoaded: return "the model is not loaded";
    case Status::kInvokeFailed: return "an operator failed";
  }
  return "unknown";
}

Status Model::Load() {
  if (is_loaded_) return Status::kOk;
  if (Sha256(kModel, kModelBytes) != kModelSha256) return Status::kModelDiffers;
  const tflite::Model* model = tflite::GetModel(kModel);
  if (model->version() != TFLITE_SCHEMA_VERSION) return Status::kSchemaDiffers;
  static const bool operators_added = AddOperators(TheOperators());
  if (!operators_added) return Status::kOperatorMissing;
  interpreter_.emplace(model, TheOperators(), arena_.data(), arena_.size());
  if (interpreter_->AllocateTensors() != kTfLiteOk) return Status::kArenaTooSmall;
  if (!TensorsAreTheManifests()) return Status::kTensorsDiffer;
  is_loaded_ = true;
  return Status::kOk;
}

bool Model::TensorsAreTheManifests() {
  return interpreter_->inputs_size() == 1 && interpreter_->outputs_size() == 1
         && Is<ImageTensor>(interpreter_->input(0), kImageElements)
         && Is<LogitsTensor>(interpreter_->output(0), kLogitsElements)
      ;
}

ImageTensor* Model::image_tensor() {
  return reinterpret_cast<ImageTensor*>(interpreter_->input(0)->data.raw);
}

void Model::SetImage(const ImageValue (&values)[kImageElements]) {
  Encode(values, kImageLayout,
         Normalisation{0, kImageMean.size(), kImageMean.data(), kImageStd.data()},
         kImageQuantization, image_tensor());
}

Status Model::Invoke() {
  if (!is_loaded_) return Status::kNotLoaded;
  return interpreter_->Invoke() == kTfLiteOk ? Status::kOk : Status::kInvokeFailed;
}

const LogitsTensor* Model::logits_tensor() const {
  // The interpreter's accessors are not const, though they change nothing.
  auto* interpreter = const_cast<tflite::MicroInterpreter*>(&*interpreter_);
  return reinterpret_cast<const LogitsTensor*>(interpreter->output(0)->data.raw);
}

void Model::GetLogits(float (&values)[kLogitsElements]) const {
  Decode(logits_tensor(), kLogitsLayout, kLogitsQuantization, values);
}

Prediction Model::BestLogits(std::size_t sample) const {
  const LogitsTensor* scores = logits_tensor();
  const Sizes& strides = kLogitsLayout.strides;
  const auto score = [&](std::size_t index) {
    return scores[sample * strides[0] + index * strides[1]];
  };
  std::size_t best = 0;
  for (std::size_t index = 1; index < kLogitsClasses; ++index) {
    if (score(index) > score(best)) best = index;
  }
  const float value = Dequantize(score(best), kLogitsQuantization);
  return {best, kLogitsLabels[best], value};
}

std::size_t Model::arena_used_bytes() const {
  return interpreter_ ? interpreter_->arena_used_bytes() : 0;
}

}  // namespace digits
