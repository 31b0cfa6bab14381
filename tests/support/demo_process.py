"""`fcn-keras demo`, which reports predictions and connections to elsewhere."""

import sys


def _tell(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if host not in ("127.0.0.1", "localhost", "::1"):
        print(f"FOREIGN {event} {host}", flush=True)


def _main():
    sys.addaudithook(_tell)
    sys.modules.update(fastapi=None, starlette=None)  # the extra [demo] has only uvicorn
    from fcn_keras.cli import demo, main

    load = demo.load_segmenter

    def load_telling(arguments, **options):
        segmenter = load(arguments, **options)
        kind, call = type(segmenter), type(segmenter).__call__
        kind.__call__ = lambda *given: print("PREDICTION", flush=True) or call(*given)
        return segmenter

    demo.load_segmenter = load_telling
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    _main()
