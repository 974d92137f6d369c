"""A decoder with an instruction and no examples: what the model can do untouched.

Knows how a decoder is loaded and asked; learns nothing but how long answers are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fitune import config
from fitune.approaches.base import Cost, Prediction, Progress, Work
from fitune.approaches.decoder import (
    Answerer,
    answer_tokens,
    context_length,
    label_instruction,
    require_decoder,
)
from fitune.data.rows import Row, Rows, Turn
from fitune.data.template import ChatTemplate
from fitune.models.architecture import describe
from fitune.models.load import load_decoder, load_tokenizer
from fitune.models.source import resolve_source
from fitune.runs import read_json, write_json


class Prompt:
    """Label likelihood for classify, greedy decoding for generate; shows `examples` first."""

    use = "prompt"

    def __init__(self, options: config.Prompt | config.FewShot, work: Work) -> None:
        self._options = options
        self.work = work
        self.source = resolve_source(
            options.model,
            download=work.task.download,
            trust_remote_code=work.task.trust_remote_code,
        )
        self.architecture = describe(self.source)
        require_decoder(self.source, self.architecture, self.use)
        self.max_length = context_length(
            options.max_length, self.architecture, self.architecture.max_length, self.source
        )
        self.template = ChatTemplate(
            load_tokenizer(self.source),
            instruction=label_instruction(work.task.instruction, work.labels),
            chat_template=work.task.chat_template,
        )
        self.max_new_tokens = 0
        self.examples: tuple[Row, ...] = ()
        self._answerer: Answerer | None = None

    def fit(self, train: Rows, validation: Rows) -> None:
        self.max_new_tokens = answer_tokens(self.work, self.template, train)

    def predict(self, rows: Rows, progress: Progress) -> list[Prediction]:
        if self._answerer is None:
            self._answerer = Answerer(
                model=self._load(),
                template=self.template,
                labels=self.work.labels,
                max_length=self.max_length,
                max_new_tokens=self.max_new_tokens,
                too_long=self.work.task.data.too_long,
                work=self.work,
                examples=self.examples,
            )
        return self._answerer.answer(rows, progress)

    def _load(self) -> Any:
        import torch

        dtype = torch.bfloat16 if self.work.dtype == "bf16" else torch.float32
        return load_decoder(self.source, dtype=dtype, device=self.work.device)

    @property
    def cost(self) -> Cost:
        return Cost(self.architecture.parameters, trainable_parameters=0, rows=len(self.examples))

    @property
    def options(self) -> dict[str, Any]:
        return self._options.model_dump() | {
            "max_length": self.max_length,
            "max_new_tokens": self.max_new_tokens,
            "dtype": self.work.dtype,
            "instruction": self.template.instruction,
        }

    def save(self, folder: Path) -> None:
        write_json(
            folder / "prompt.json",
            {
                "options": self._options.model_dump(),
                "max_new_tokens": self.max_new_tokens,
                "examples": [
                    {
                        "history": [[turn.role, turn.text] for turn in row.history],
                        "text": row.text,
                        "answer": row.answer,
                    }
                    for row in self.examples
                ],
            },
        )

    @classmethod
    def load(cls, folder: Path, work: Work) -> Prompt:
        saved = read_json(folder / "prompt.json")
        made = cls(cls._read_options(saved["options"]), work)
        made.max_new_tokens = saved["max_new_tokens"]
        made.examples = tuple(
            Row(
                text=record["text"],
                answer=record["answer"],
                history=tuple(Turn(role, text) for role, text in record["history"]),
            )
            for record in saved["examples"]
        )
        return made

    @staticmethod
    def _read_options(saved: dict[str, Any]) -> config.Prompt | config.FewShot:
        return config.Prompt.model_validate(saved)
