"""The door of the server: what a client says is checked here, before anything of MONAI Label sees it.

`checks` holds what is declared of options, names and limits, `addresses` what an address and a call are, `routes`
which are open and what each takes, `uploads` what a file must be, `middleware` the door itself; `privacy` hides what
answers and logs must not say, `ending` stops a server with what was trained kept. Import from the modules.
"""
