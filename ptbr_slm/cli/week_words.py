"""Durations, counts, and what to expect of a planned model, in words."""

from __future__ import annotations

from ptbr_slm.cli.terminal import paragraph
from ptbr_slm.text import number
from ptbr_slm.train.planning.advice import LARGE
from ptbr_slm.train.planning.scaling import LARGEST_RUN, MISSED, OTHER_TEXT, SMALLEST_RUN, expected
from ptbr_slm.train.planning.week import WeekPlan

FAR = 3
"""Times the largest run of the scaling law from which on a plan says that it is carried far."""


def clock_text(seconds: float) -> str:
    """37800 -> '10h30m'; under an hour '12m30s' or '45s', as the options take it."""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours}h{minutes:02d}m" if minutes else f"{hours}h"
    return (f"{minutes}m" if minutes else "") + (f"{rest}s" if rest or not minutes else "")


def many(count: float) -> str:
    """4.6e9 -> '4,60 bilhões'; 1.2e6 -> '1,20 milhão'."""
    for unit, one, more in ((1e9, "bilhão", "bilhões"), (1e6, "milhão", "milhões")):
        if count >= unit:
            return f"{number(count / unit, 2)} {more if count >= 2 * unit else one}"
    return number(count)


def expected_text(plan: WeekPlan) -> str:
    """The loss, with how far it is carried, and the model."""
    said = expected(plan.model.num_parameters, plan.tokens)
    parameters, tokens = plan.model.num_parameters / LARGEST_RUN[0], plan.tokens / LARGEST_RUN[1]
    far = ""
    if max(parameters, tokens) > FAR:
        far = (
            f" Este treino tem {number(max(1, parameters))} vezes os parâmetros e {number(max(1, tokens))} "
            "vezes os tokens do maior deles: é uma extrapolação larga; dá a direção, não promete o número."
        )
    return "\n".join([
        paragraph(
            f"A perda esperada: {number(said.bits, 2)} bits por byte, entre {number(said.low, 2)} e "
            f"{number(said.high, 2)} (calculado por uma lei de escala de treinos nossos de "
            f"{number(SMALLEST_RUN[0] / 1e6, 1)} a {number(LARGEST_RUN[0] / 1e6, 1)} milhões de parâmetros e "
            f"de quatro publicados, e pelos {number(100 * MISSED)} % que ela errou em dois ensaios).{far} Em "
            f"outro texto o nível muda, uns {number(OTHER_TEXT, 1)} para mais ou para menos; o que vale é "
            "comparar tamanhos e horas."
        ),
        paragraph(f"O modelo a esperar: {kind_of_model(plan.model.num_parameters, plan.tokens)}"),
    ])  # fmt: skip


def kind_of_model(parameters: int, tokens: int) -> str:
    """What such a model can do, in words."""
    if parameters < LARGE or tokens < 2e8:
        return "imita a forma do português, com palavras e frases certas; o sentido quase não vem."
    return (
        "português fluente por algumas frases, que perde o fio e inventa fatos; responde a perguntas só "
        "depois do tune. Para comparar, no CALAME-PT (a última palavra de um trecho; medido pelos autores do "
        "Tucano): GPorTuguese 40,6 %, TeenyTinyLlama-160m 46,7 %; Tucano-160m, com 168 bilhões de tokens, "
        "52,3 %."
    )
