"""The model `timeline`: one request about a long video, and many responses, one or several windows in each.

    triton_model.py      starts and stops the model, and takes requests from Triton
    service.py           the timelines that run, and the watch over their clients
    timeline.py          one timeline: windows are decoded, run through the network, and sent
    network.py           calls a network
    shared_runs.py       how many windows share one of its runs
    acknowledgements.py  flow control
    request.py           parameters of a request
    config.py            parameters of the config
    metrics.py           what Prometheus reads

The model is decoupled, and calls the networks itself (BLS): a decoupled first step of an ensemble does not hear of a
client that has gone (measured with Triton 2.51). Each video is decoded by a process of its own, see
decode_pool/window_stream.py. Errors, parameters and requests in flight are handled as in decode_model: triton.py and
in_flight.py.
"""
