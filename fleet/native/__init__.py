"""The core of a simulation as machine code: the same source, compiled by mypyc, with the same trace hash.

`python -m fleet.native.build` compiles the modules of fleet.native.modules for this interpreter, into its own folder of
site-packages; `use()` has `import` take them. What was compiled from another source, or by another Python, is never
used: the source is hashed at each start. Without a C compiler everything works as well, interpreted.
"""
