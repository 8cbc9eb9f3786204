"""Makes a Hugging Face checkpoint into the folder that transformers.js loads: export_onnx.py --run RUN --out OUT.

model.onnx in f32, and model_quantized.onnx as transformers.js's own conversion makes it for BERT: slimmed, then dynamic
quantization with signed weights per channel in 7 bits.
"""

import argparse
import os
import shutil

import onnx
import onnxslim
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import AutoModelForSequenceClassification

INPUTS = ["input_ids", "attention_mask", "token_type_ids"]


class Logits(torch.nn.Module):
    """The model with nothing but tensors around it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, token_type_ids):
        return self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).logits


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()

    shutil.rmtree(args.out, ignore_errors=True)
    folder = os.path.join(args.out, "onnx")
    os.makedirs(folder)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(os.path.join(args.run, name), args.out)
    full, quantized = os.path.join(folder, "model.onnx"), os.path.join(folder, "model_quantized.onnx")

    model = AutoModelForSequenceClassification.from_pretrained(
        args.run, dtype=torch.float32, attn_implementation="eager"
    )
    example = torch.randint(1000, 2000, (2, 16))
    torch.onnx.export(
        *(Logits(model).eval(), (example, torch.ones_like(example), torch.zeros_like(example)), full),
        input_names=INPUTS,
        output_names=["logits"],
        dynamic_axes={**{name: {0: "batch", 1: "tokens"} for name in INPUTS}, "logits": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    onnx.save(onnxslim.slim(full), full)
    quantize_dynamic(
        *(full, quantized),
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
        extra_options={"EnableSubgraph": True, "MatMulConstBOnly": True},
    )


if __name__ == "__main__":
    main()
