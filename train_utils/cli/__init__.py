"""The command lines of the scripts: everything that knows argparse."""
