"""What each subcommand of `emu` does; emu/cli.py has their arguments."""
