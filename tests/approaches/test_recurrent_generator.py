"""The network that writes: attention by hand, greedy answers by brute force."""

from __future__ import annotations

import pytest
import torch

from fitune import config
from fitune.approaches.recurrent_generator import TeacherForced, Writer
from fitune.data.encoded import Encoded, Reason
from recurrent_kit import batch_of, read_by_hand, walk

END = 9
READ = [[2, 7, 1, 8], [3], [4, 5, 6]]
SAID = [[1, 2], [5, 6, 7, 8], []]


def make(cell: str, layers: int = 1, **options: object) -> Writer:
    given = {"cell": cell, "hidden": 6, "layers": layers, **options}
    torch.manual_seed(1)
    writer = Writer(10, 0, END, config.Recurrent.model_validate(given))
    for parameter in writer.parameters():  # first ones are so small that all answers are alike
        parameter.data.mul_(3)
    return writer.eval()


@torch.no_grad()
def logits_by_hand(writer: Writer, read: list[int], said: list[int]) -> torch.Tensor:
    """``[answer tokens + 1, tokens]``: after `end`, and after each token of the answer."""
    states, last = read_by_hand(writer.reader, read)
    values = [writer.embedding.weight[i].detach().double()[None] for i in [END, *said]]
    weight = {name: p.detach().double() for name, p in writer.named_parameters()}
    for layer in range(writer.layers.num_layers):
        first = torch.tanh(last[layer] @ weight["begins.weight"].T + weight["begins.bias"])[None]
        begun = (first, torch.zeros_like(first)) if writer.lstm else first
        values = walk(writer.layers, layer, "", values, begun)
    found = []
    for value in values:
        scores = torch.stack([value[0] @ weight["compared.weight"] @ state for state in states])
        shares = scores.exp() / scores.exp().sum()
        context = sum(share * state for share, state in zip(shares, states, strict=True))
        both = torch.cat([context, value[0]])  # type: ignore[list-item]  # a sum of tensors
        found.append(torch.tanh(weight["combined.weight"] @ both))
    return torch.stack(found) @ weight["head.weight"].T + weight["head.bias"]


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("layers", [1, 2])
def test_the_loss_is_that_of_the_true_tokens_by_hand(cell: str, layers: int) -> None:
    writer = make(cell, layers)
    items = [Encoded(tuple(ids), (Reason.TEXT,) * len(ids)) for ids in READ]
    objective = TeacherForced(items, [[*said, END] for said in SAID], pad=END)
    batch = objective.batch([0, 1, 2])
    expected = sum(
        torch.nn.functional.cross_entropy(
            logits_by_hand(writer, read, said), torch.tensor([*said, END]), reduction="sum"
        ).item()
        for read, said in zip(READ, SAID, strict=True)
    )
    assert objective.loss_sum(writer, batch).item() == pytest.approx(expected, abs=1e-4)
    assert batch.learned == sum(len(said) + 1 for said in SAID)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_greedy_is_the_likeliest_token_each_time(cell: str) -> None:
    writer = make(cell, layers=2)
    written = writer.greedy(*batch_of(READ), 12).tolist()
    assert len({tuple(ids) for ids in written}) > 1  # else it could have read nothing
    for read, ids in zip(READ, written, strict=True):
        said: list[int] = []
        while len(said) < 12 and END not in said:
            said.append(int(logits_by_hand(writer, read, said)[-1].argmax()))
        assert ids[: len(said)] == said


def test_greedy_ends_at_the_limit_or_when_all_have_ended() -> None:
    writer = make("gru")
    writer.head.bias.data[3] = 1e4
    assert writer.greedy(*batch_of(READ), 5).tolist() == [[3] * 5] * 3
    writer.head.bias.data[END] = 1e5
    assert writer.greedy(*batch_of(READ), 5).tolist() == [[END]] * 3


def test_padding_changes_nothing() -> None:
    writer = make("lstm", layers=2)
    together = writer(*batch_of(READ), torch.full((3, 4), 2))
    for row, read in enumerate(READ):
        alone = writer(*batch_of([read]), torch.full((1, 4), 2))
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-6, rtol=0)
