"""Measures the upper limit: calls `model.generate` in a loop, without a server. Prints one JSON object.

Tries one CPU thread and all of them and reports the faster, so that the result does not depend on OpenMP's default.
"""

import argparse
import json
import time

import psutil
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--prompt", required=True)
parser.add_argument("--tokens", type=int, required=True)
parser.add_argument("--seconds", type=float, required=True)
arguments = parser.parse_args()

tokenizer = AutoTokenizer.from_pretrained(arguments.model)
device = "cuda" if torch.cuda.is_available() else "cpu"
dtype = torch.bfloat16 if device == "cuda" else "auto"
model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=dtype).to(device).eval()


def run() -> int:
    encoded = tokenizer(arguments.prompt, return_tensors="pt").to(device)
    output = model.generate(
        **encoded, max_new_tokens=arguments.tokens, min_new_tokens=arguments.tokens, do_sample=False
    )
    tokenizer.decode(output[0], skip_special_tokens=True)
    return output.shape[1] - encoded["input_ids"].shape[1]


best: dict[str, object] = {}
for threads in sorted({1, torch.get_num_threads()}):
    torch.set_num_threads(threads)
    run()
    started, cpu = time.perf_counter(), time.process_time()
    tokens = 0
    while time.perf_counter() - started < arguments.seconds:
        tokens += run()
    rate = tokens / (time.perf_counter() - started)
    cpu = 1000 * (time.process_time() - cpu) / tokens
    first = time.perf_counter()
    encoded = tokenizer(arguments.prompt, return_tensors="pt").to(device)
    model.generate(**encoded, max_new_tokens=1, do_sample=False)
    first = time.perf_counter() - first
    if not best or rate > best["tokens_per_second"]:
        best = {"tokens_per_second": rate, "threads": threads, "first_token_seconds": first, "cpu_ms_per_token": cpu}
best["rss_mib"] = psutil.Process().memory_info().rss / 2**20
best["parameters"] = model.num_parameters()
print(json.dumps(best))
