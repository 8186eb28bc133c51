"""The loss curve that tests/train.rs holds the training loop against: PyTorch and transformers, f32, one thread.

    pip install torch transformers
    python tests/reference/train_curve.py        # rewrites tests/golden/training/curve.json

The model is that of tests/golden/llama/loss_causal_lm. Batches are drawn here and stored, so that nothing but arithmetic is
compared: AdamW with decay on matrices only, clipping by the norm of all gradients, a warm-up and half a cosine, two batches
to a step, every target counting the same.
"""
import json
import math
import pathlib

import torch
from transformers import LlamaForCausalLM

ROOT = pathlib.Path(__file__).resolve().parents[1] / "golden"
STEPS, BATCHES, ROWS, LEN, VOCAB = 50, 2, 3, 16, 160
SETTINGS = {"peak": 3e-3, "warmup_steps": 5, "total_steps": 50, "final_ratio": 0.1, "beta1": 0.9, "beta2": 0.95,
            "eps": 1e-8, "weight_decay": 0.1, "clip_norm": 1.0}


def rate(step):
    s = SETTINGS
    if step < s["warmup_steps"]:
        return s["peak"] * step / s["warmup_steps"]
    done = min(1.0, (step - s["warmup_steps"]) / (s["total_steps"] - s["warmup_steps"]))
    return s["peak"] * (s["final_ratio"] + (1 - s["final_ratio"]) * 0.5 * (1 + math.cos(math.pi * done)))


def main():
    torch.manual_seed(7)
    torch.set_num_threads(1)
    model = LlamaForCausalLM.from_pretrained(
        ROOT / "llama/loss_causal_lm/checkpoint", dtype=torch.float32, attn_implementation="eager")
    model.train()
    vocab = min(VOCAB, model.config.vocab_size)
    # Few different rows, seen often, so that the curve falls.
    pool = torch.randint(3, vocab, (12, LEN))
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": SETTINGS["weight_decay"]}, {"params": vectors, "weight_decay": 0.0}],
        lr=1.0, betas=(SETTINGS["beta1"], SETTINGS["beta2"]), eps=SETTINGS["eps"])
    steps = []
    for step in range(STEPS):
        batches = []
        for _ in range(BATCHES):
            ids = pool[torch.randint(0, len(pool), (ROWS,))]
            labels = ids.clone()
            labels[torch.rand(labels.shape) < 0.2] = -100
            batches.append((ids, labels))
        targets = sum(int((labels[:, 1:] != -100).sum()) for _, labels in batches)
        optimiser.zero_grad()
        total = 0.0
        for ids, labels in batches:
            logits = model(input_ids=ids).logits[:, :-1]
            loss = torch.nn.functional.cross_entropy(
                logits.reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1), ignore_index=-100, reduction="sum")
            (loss / targets).backward()
            total += loss.item() / targets
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), SETTINGS["clip_norm"]))
        for group in optimiser.param_groups:
            group["lr"] = rate(step)
        optimiser.step()
        steps.append({"loss": total, "grad_norm": norm,
                      "batches": [{"ids": i.tolist(), "labels": l.tolist()} for i, l in batches]})
    out = {"made_with": f"torch {torch.__version__}", "settings": SETTINGS, "len": LEN, "steps": steps}
    (ROOT / "training").mkdir(exist_ok=True)
    (ROOT / "training/curve.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")
    print("first", steps[0]["loss"], "last", steps[-1]["loss"])


if __name__ == "__main__":
    main()
