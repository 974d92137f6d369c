"""HF Trainer on the rounds' rows, fine-tuning all of an encoder.

    python encoder_with_trainer.py CONTENDER ROUNDS.json MODEL_FOLDER

Runs in the peers' own environment, and imports nothing of fitune.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.engine.rounds import CLASSIFY_BATCH, CLASSIFY_STEPS
from benchmarks.engine.worker import Meter

# contender → whether it pools by the mean (a model written for it), and what differs from defaults
CONTENDERS: dict[str, tuple[bool, dict[str, Any]]] = {
    "trainer-fp32": (False, {}),
    "trainer-bf16-mean": (True, {"bf16": True}),
}


def main(contender: str, path: Path, model_folder: str) -> None:
    import torch
    from datasets import Dataset
    from torch import nn
    from transformers import (
        AutoModel,
        AutoModelForSequenceClassification,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    mean, changes = CONTENDERS[contender]
    written = json.loads(path.read_text())
    rows = [row for part in written["rounds"] for row in part]
    labels = len(written["labels"])
    meter = Meter()

    class MeanPooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = AutoModel.from_pretrained(model_folder)
            self.head = nn.Linear(self.trunk.config.hidden_size, labels)

        def forward(self, input_ids: Any, attention_mask: Any, labels: Any) -> Any:
            hidden = self.trunk(input_ids, attention_mask).last_hidden_state
            mask = attention_mask[..., None]
            vectors = (hidden * mask).sum(1) / mask.sum(1)
            logits = self.head(vectors).float()
            return nn.functional.cross_entropy(logits, labels), logits

    class Rounds(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step % CLASSIFY_STEPS == 0:
                meter.wait()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any, **kwargs: Any) -> None:
            if "loss" in logs:
                meter.losses.append(float(logs["loss"]))
                if state.global_step % CLASSIFY_STEPS == 0:
                    meter.tell()

    class Counted(Trainer):
        def training_step(self, model: Any, inputs: Any, *more: Any) -> Any:
            meter.tokens += int(inputs["attention_mask"].sum())
            return super().training_step(model, inputs, *more)

        def _get_train_sampler(self, *args: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    def collate(batch: list[dict[str, Any]]) -> dict[str, Any]:
        width = max(len(row["input_ids"]) for row in batch)

        def padded(values: list[int], fill: int) -> list[int]:
            return values + [fill] * (width - len(values))

        ids = [row["input_ids"] for row in batch]
        return {
            "input_ids": torch.tensor([padded(each, written["pad"]) for each in ids]),
            "attention_mask": torch.tensor([padded([1] * len(each), 0) for each in ids]),
            "labels": torch.tensor([row["label"] for row in batch]),
        }

    torch.manual_seed(0)
    model = (
        MeanPooled()
        if mean
        else AutoModelForSequenceClassification.from_pretrained(model_folder, num_labels=labels)
    )
    trainer = Counted(
        model=model,
        args=TrainingArguments(
            output_dir=tempfile.mkdtemp(),
            learning_rate=3e-4,
            lr_scheduler_type="constant",
            num_train_epochs=1,
            per_device_train_batch_size=CLASSIFY_BATCH,
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            seed=0,
            **changes,
        ),
        train_dataset=Dataset.from_list(rows),
        data_collator=collate,
        callbacks=[Rounds()],
    )
    trainer.train()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
