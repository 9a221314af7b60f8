"""The shared sum: clients share their integers between two servers, which sum. SPEC: protocols/shared/SPEC.md.

``params``      what a session is about, keys of shares and boxes
``messages``    one frozen dataclass per message
``client``      a client: one vector up, nothing else
``server``      the first server, which learns the sum
``second``      the second server, which learns who is in it
``protection``  :class:`SharedSum`, the face the pipeline uses
"""

from securefl.mpc.summation.client import SharedClient
from securefl.mpc.summation.params import SECOND_SERVER, Params
from securefl.mpc.summation.protection import SharedSum
from securefl.mpc.summation.second import SecondServer
from securefl.mpc.summation.server import FirstServer

__all__ = ["SECOND_SERVER", "FirstServer", "Params", "SecondServer", "SharedClient", "SharedSum"]
