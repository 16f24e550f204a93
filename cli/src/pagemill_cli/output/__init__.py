"""What stands on an output, seen and put right from outside a run: status, verify, retry, runs, gc, cat.

Layer: `cli.output`, beside `cli.local` and below `cli.commands`. Prints nothing; functions take a `Target` and return
typed values.
"""
