from edgesdk.cost.file_form import FileForm, FormOp, FormTensor
from edgesdk.cost.micro_arena import micro_arena_bytes


def perceptron(scales: int = 1) -> FileForm:
    """8 int8 in, one fully connected layer, 4 out."""
    form = FileForm()
    form.inputs = [form.add(FormTensor(elements=8, element_bytes=1, rank=2, scales=1))]
    weight = FormTensor(elements=32, element_bytes=1, rank=2, scales=scales, is_constant=True)
    bias = FormTensor(elements=4, element_bytes=4, rank=1, scales=1, is_constant=True)
    constants = (form.add(weight), form.add(bias))
    form.outputs = [form.add(FormTensor(elements=4, element_bytes=1, rank=2, scales=1))]
    op = FormOp(operator="FULLY_CONNECTED", inputs=(0, *constants), outputs=(3,))
    form.ops.append(op)
    return form


def test_every_structure_of_one_layer_by_hand() -> None:
    head = 16 + 16  # input and output, each aligned
    tensors, node, boundary = 4 * 24, 64, 2 * (16 + 64 + 32)
    layer = 32 + 80  # parsed options; 72 bytes of kernel data, aligned
    tail = 488 + tensors + node + boundary + layer
    assert micro_arena_bytes(perceptron()) == head + (tail + 15) // 16 * 16


def test_a_scale_a_channel_adds_a_multiplier_and_a_shift_each() -> None:
    assert micro_arena_bytes(perceptron(4)) - micro_arena_bytes(perceptron()) == 2 * 16


def test_an_operator_nobody_looked_up_still_counts() -> None:
    form = perceptron()
    before = micro_arena_bytes(form)
    form.tensors.append(FormTensor(elements=4, element_bytes=1, rank=2, scales=1))
    form.ops.append(FormOp(operator="SOMETHING", inputs=(3,), outputs=(4,)))
    assert micro_arena_bytes(form) >= before + 64 + 24
