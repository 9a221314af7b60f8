"""securefl inside other federated-learning systems. What they have in common, lowest first:

``invitation``   what the server proposes for one sum; its hash enters every key and frame
``policy``       what this client agrees to, from its own side and never from the server
``tensors``      a model as an engine hands it over
``vector``       update, weight and metrics to one vector of integers, and its sum back
``participant``  a client that lives for one message at a time
``settings``     what a server asks of its sums
``coordinator``  the server's side of one round: one or more sums, exchange by exchange

and on top of them ``flower`` (SecureMod, SecureGrid) and ``nvflare``.
"""
