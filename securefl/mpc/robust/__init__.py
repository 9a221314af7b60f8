"""Rules on shared updates that masks cannot express. SPEC: protocols/robust/SPEC.md.

Programs of the three parties (:mod:`securefl.mpc.party`) over a tensor of integers [clients, dimension]:

``logic``       secret bits: all of a row
``vetting``     range of every coordinate and ℓ2 norm; who is dropped is opened to the servers
``sorting``     sorting networks
``rules``       sums of accepted updates, coordinate median, trimmed mean, multi-Krum
``evaluation``  how many answers of a model are right
"""

from securefl.mpc.robust.evaluation import count_correct
from securefl.mpc.robust.rules import accepted_sum, median, multi_krum, trimmed_sum
from securefl.mpc.robust.vetting import vet

__all__ = ["accepted_sum", "count_correct", "median", "multi_krum", "trimmed_sum", "vet"]
