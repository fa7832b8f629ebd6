"""Names of the precisions. Each backend lists those that its target supports."""

FP32, FP16, BF16 = "fp32", "fp16", "bf16"
INT8 = "int8"
MIXED = "mixed"  # an INT8 engine with layers left in float
