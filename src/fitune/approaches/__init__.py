"""Approaches: ways of applying a model to a task, behind one interface (`base.Approach`).

`APPROACHES` is the whole list, in the order in which the ladder tries them: cheapest first. To add
one, write a file and a line here; a user's own is named in the task file in the same spelling.
"""

APPROACHES: dict[str, str] = {
    "majority": "fitune.approaches.majority:Majority",
    "linear": "fitune.approaches.linear:Linear",
    "ngram": "fitune.approaches.ngram:NGram",
    "hmm": "fitune.approaches.hmm:Hmm",
    "recurrent": "fitune.approaches.recurrent:Recurrent",
    "knn": "fitune.approaches.knn:Knn",
    "embeddings": "fitune.approaches.embeddings:Embeddings",
    "prompt": "fitune.approaches.prompt:Prompt",
    "few-shot": "fitune.approaches.fewshot:FewShot",
    "rag": "fitune.approaches.rag:Rag",
    "finetuned": "fitune.approaches.finetuned:Finetuned",
}
"""Name in the task file → where the class is; imported only when used."""
