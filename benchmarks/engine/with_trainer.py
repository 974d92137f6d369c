"""HF Trainer + PEFT, and TRL's SFTTrainer, on the rounds' rows.

    python with_trainer.py CONTENDER ROUNDS.json MODEL_FOLDER

Runs in the peers' own environment, and imports nothing of fitune.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.engine.rounds import BATCH, STEPS
from benchmarks.engine.worker import Meter

# contender → which trainer, the dtype of the weights, and what differs from the trainer's defaults
CONTENDERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "trainer-fp32": ("hf", "float32", {}),
    "trainer-bf16-autocast": ("hf", "float32", {"bf16": True}),
    "trainer-bf16-weights": ("hf", "bfloat16", {}),
    "trl-defaults": ("trl", "float32", {}),
    "trl-bf16": ("trl", "bfloat16", {"gradient_checkpointing": False}),
    "trl-packing": (
        "trl",
        "bfloat16",
        {"gradient_checkpointing": False, "packing": True, "max_length": 1024},
    ),
}


def main(contender: str, path: Path, model_folder: str) -> None:
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    kind, dtype, changes = CONTENDERS[contender]
    written = json.loads(path.read_text())
    rows = [row for part in written["rounds"] for row in part]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=getattr(torch, dtype))
    adapter = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    meter = Meter()
    packs = bool(changes.get("packing"))

    class Rounds(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step % steps == 0:
                meter.wait()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any, **kwargs: Any) -> None:
            if "loss" in logs:
                meter.losses.append(float(logs["loss"]))
                if state.global_step % steps == 0:
                    meter.tell()

    common: dict[str, Any] = {
        "output_dir": tempfile.mkdtemp(),
        "learning_rate": 2e-4,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "num_train_epochs": 1,
        "per_device_train_batch_size": 1 if packs else BATCH,
        "logging_steps": 1,
        "report_to": [],
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 0,
        **changes,
    }

    def counted(base: type) -> type:
        class Counted(base):  # type: ignore[misc,valid-type]
            def training_step(self, model: Any, inputs: Any, *more: Any) -> Any:
                mask = inputs.get("attention_mask")
                meter.tokens += int(inputs["input_ids"].numel() if mask is None else mask.sum())
                return super().training_step(model, inputs, *more)

            def _get_train_sampler(self, *args: Any) -> Any:
                return torch.utils.data.SequentialSampler(self.train_dataset)

        return Counted

    if kind == "hf":
        from transformers import Trainer, TrainingArguments

        steps = STEPS

        def collate(batch: list[dict[str, list[int]]]) -> dict[str, Any]:
            width = max(len(row["input_ids"]) for row in batch)

            def padded(values: list[int], fill: int) -> list[int]:
                return values + [fill] * (width - len(values))

            return {
                "input_ids": torch.tensor([padded(r["input_ids"], written["pad"]) for r in batch]),
                "attention_mask": torch.tensor(
                    [padded([1] * len(r["input_ids"]), 0) for r in batch]
                ),
                "labels": torch.tensor([padded(r["labels"], -100) for r in batch]),
            }

        trainer = counted(Trainer)(
            model=get_peft_model(model, adapter),
            args=TrainingArguments(**common),
            train_dataset=Dataset.from_list(rows),
            data_collator=collate,
            callbacks=[Rounds()],
        )
    else:
        from trl import SFTConfig, SFTTrainer

        data = [
            {
                "input_ids": row["input_ids"],
                "completion_mask": [int(label != -100) for label in row["labels"]],
            }
            for row in rows
        ]
        trainer = counted(SFTTrainer)(
            model=model,
            args=SFTConfig(completion_only_loss=True, **common),
            train_dataset=Dataset.from_list(data),
            processing_class=AutoTokenizer.from_pretrained(model_folder),
            peft_config=adapter,
            callbacks=[Rounds()],
        )
        steps = len(trainer.train_dataset) // len(written["rounds"]) if packs else STEPS
    trainer.train()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
