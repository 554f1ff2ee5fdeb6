"""The command line: ``python -m trio_muxado``, which is installed as ``trio-muxado`` as well."""

from trio_muxado._command import main

if __name__ == "__main__":
    main()
