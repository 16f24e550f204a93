"""The stages that an item passes: built-in ones, and those that a user adds between them.

Layer: `worker.stages`, above `images` and the engines' contract, below the runners that call it. `contract` is what a
user writes against; `pipeline` says what stands where, `sizes` what a job says of the built-in ones, `loading` which
classes may be named, and `chain` calls them in a child process.
"""
