# SPDX-License-Identifier: Apache-2.0
"""
Names for containers that were given none: a quality and a person of science.
"""

from __future__ import annotations

import os
from typing import Final

_ADJECTIVES: Final = """
    able agile amber apt brave brief bright brisk calm candid careful clear clever cordial crisp curious
    daring deft earnest eager easy exact fair fluent frank free fresh gentle glad golden hardy honest
    humble jolly keen kind lively loyal lucid mellow merry mild modest neat nimble noble novel patient
    placid plucky polite prompt proud quick quiet ready serene sharp silent simple sincere smart solid
    steady sturdy subtle sunny swift tidy vivid warm wise witty
""".split()

_SURNAMES: Final = """
    abel agnesi ampere archimedes avogadro babbage bell bernoulli bohr boole bose brahe cannon cantor
    carson cauchy cavendish chandra church copernicus curie darwin dijkstra dirac einstein erdos euclid
    euler faraday fermat fermi feynman fibonacci fourier franklin galileo galois gauss germain godel
    goodall hamilton hawking herschel hertz hilbert hodgkin hopper hubble huygens hypatia joule kepler
    khayyam knuth kovalevskaya lagrange lamarr laplace lavoisier leavitt leibniz linnaeus lovelace
    maxwell mcclintock meitner mendel mirzakhani newton noether ohm pascal pasteur pauling perlman
    planck poincare raman ramanujan ride riemann rubin sagan shannon somerville tesla thompson
    torricelli turing volta wiles wu yalow
""".split()


def random_name(attempt: int = 0) -> str:
    """
    A name like ``keen_noether``; with a number behind it after the first
    *attempt*, when names begin to be taken.

    Not from the random module: a caller's random.seed() must not make names
    repeat, and importing it takes five milliseconds.
    """
    number = int.from_bytes(os.urandom(8), "little")
    number, adjective = divmod(number, len(_ADJECTIVES))
    number, surname = divmod(number, len(_SURNAMES))
    name = f"{_ADJECTIVES[adjective]}_{_SURNAMES[surname]}"
    return f"{name}{number % 10 ** min(attempt, 9)}" if attempt > 0 else name
